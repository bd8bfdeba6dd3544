"""Weights from files, and published ones in networks that name their layers otherwise.

Our networks register their layers in the order of the published code. So the entries of both are
paired by position, and each pair is checked: the last word of its names, and its shapes.
"""

import zipfile
from difflib import SequenceMatcher
from itertools import zip_longest

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint

# How the names in the auxiliary heads start.
OURS = "auxiliary"
THEIRS = {"torchvision": ("AuxLogits.", "aux1.", "aux2."), "timm": ("AuxLogits.",)}


def read(path):
    """Read a state dict from a file, and run nothing that may lie in it.

    A file of weights is an archive of tensors and of instructions that put them together. Those can
    call any function, so a file from a stranger could do anything: here only the calls that make
    tensors are obeyed. The checksums in the file are compared, too.

    Args:
        path: A file that `torch.save(net.state_dict(), path)` wrote.

    Returns:
        A dictionary from names to tensors, on the CPU.

    Raises:
        ValueError: The file is cut off or damaged, would run code, or holds something else.
    """
    with open(path, "rb"):  # of a file that is not there, Python's own error speaks
        pass
    try:
        damaged, code = _inspect(path)
        found = {} if damaged or code else torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # garbage breaks an unpickler in any way; torch's advice is to unprotect it
        raise ValueError(
            f"{path} must hold tensors alone, and it is cut off, damaged, or would run code. "
            "Nothing in it was run: fetch or save it again"
        ) from None
    if damaged:
        raise ValueError(f"{path} is damaged in {damaged}: fetch or save it again")
    if code:
        raise ValueError(
            f"{path} must hold tensors alone, and it would run {', '.join(code[:3])}. Nothing in "
            "it was run: ask for a file that torch.save(net.state_dict(), path) wrote"
        )
    if not isinstance(found, dict) or not all(isinstance(x, torch.Tensor) for x in found.values()):
        inside = list(found) if isinstance(found, dict) else type(found).__name__
        raise ValueError(
            f"{path} must hold a state dict, a tensor for each name, and it holds {inside}: save "
            "net.state_dict() alone"
        )
    return found


def _inspect(path):
    """Return the part of an archive whose checksum is wrong, and the functions it would call."""
    if not zipfile.is_zipfile(path):  # torch wrote another format until 2020
        return None, []
    with zipfile.ZipFile(path) as archive:
        return archive.testzip(), sorted(get_unsafe_globals_in_checkpoint(path))


def load(net, state_dict, layout="torchvision", skip_head=False):
    """Load published weights into a network and return the names that were skipped.

    Auxiliary heads that the network was built without are skipped. A network for grey images takes
    a colour stem summed over its 3 channels: it answers as the published one does to the grey image
    repeated 3 times.

    Args:
        net: One of our models.
        state_dict: What `state_dict()` of the published network returns, in its order.
        layout: Whose code the names come from, "torchvision" or "timm".
        skip_head: Leave what depends on the number of classes as it is: the last linear layer and
            all auxiliary heads.

    Raises:
        ValueError: The layout is unknown, or entries are missing, unexpected or of another shape.
            Nothing is loaded then.
    """
    if layout not in THEIRS:
        raise ValueError(f"layout={layout!r} must be 'torchvision' or 'timm': try 'torchvision'")
    ours, theirs = net.state_dict(), dict(state_dict)
    our_body, our_auxiliary = _split(ours, OURS)
    their_body, their_auxiliary = _split(theirs, THEIRS[layout])
    if skip_head:
        skipped = their_body[-2:] + their_auxiliary
        pairs = list(zip_longest(our_body[:-2], their_body[:-2]))
    elif our_auxiliary:
        skipped = []
        pairs = list(zip_longest(our_body, their_body))
        pairs += zip_longest(our_auxiliary, their_auxiliary)
    else:
        skipped = their_auxiliary
        pairs = list(zip_longest(our_body, their_body))

    name, other = pairs[0]
    if _is_grey_stem(ours.get(name), theirs.get(other)):
        theirs[other] = theirs[other].sum(dim=1, keepdim=True)
    if misfits := _misfits(pairs, ours, theirs):
        raise ValueError(_explain(misfits, net, ours, theirs))
    net.load_state_dict(ours | {name: theirs[other] for name, other in pairs})
    return skipped


def _split(names, prefix):
    """Part the names of the auxiliary heads from the others; both keep their order."""
    auxiliary = [name for name in names if name.startswith(prefix)]
    return [name for name in names if not name.startswith(prefix)], auxiliary


def _is_grey_stem(ours, theirs):
    """Tell whether our first weight takes 1 channel where theirs takes 3."""
    return None not in (ours, theirs) and (ours.shape[1:2], theirs.shape[1:2]) == ((1,), (3,))


def _misfits(pairs, ours, theirs):
    """Return the fewest pairs that tell both sides apart: one gap does not shift all that follows.

    Two entries fit if they have the same role, such as running_mean, and the same shape.
    """
    names = [name for name, _ in pairs if name]
    others = [other for _, other in pairs if other]
    roles = [
        [(name.rpartition(".")[2], entries[name].shape) for name in side]
        for side, entries in ((names, ours), (others, theirs))
    ]
    steps = SequenceMatcher(None, *roles, autojunk=False).get_opcodes()
    return [
        pair
        for step, i, j, m, n in steps
        if step != "equal"
        for pair in zip_longest(names[i:j], others[m:n])
    ]


def _explain(misfits, net, ours, theirs):
    """Show the first misfits side by side, count them all, and say what to try."""
    lines = [
        f"  {_describe(name, ours):<50} {_describe(other, theirs)}" for name, other in misfits[:5]
    ]
    if len(misfits) > 5:
        lines.append(f"  and {len(misfits) - 5} more")
    return (
        f"state_dict does not fit {type(net).__name__} in {len(misfits)} entries, and nothing was "
        "loaded. On the left what the network has, on the right what it was given in that place:\n"
        + "\n".join(lines)
        + "\nTry the in_channels and num_classes of the published network, or skip_head=True."
    )


def _describe(name, entries):
    """Write a name and its shape: `fc.weight (10, 512)`."""
    return "missing" if name is None else f"{name} {tuple(entries[name].shape)}"
