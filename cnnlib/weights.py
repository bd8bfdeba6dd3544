"""Read weight files, and load published weights into networks with other layer names.

Layers are paired by name if both sides have the same names. Otherwise they are paired by order,
since our networks register their layers in the order of the published code. A file may have lost
that order: safetensors sorts by name. Then the numbers in the names must restore it, among the
layers of each shape, or nothing is loaded.
"""

import math
import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Mapping
from difflib import SequenceMatcher
from itertools import accumulate, groupby, pairwise, zip_longest
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.serialization import get_unsafe_globals_in_checkpoint

from cnnlib._checks import check_flags

# Prefixes of the names in auxiliary heads.
_OURS = ("auxiliary",)
_THEIRS = {"torchvision": ("AuxLogits.", "aux1.", "aux2."), "timm": ("AuxLogits.",)}

# Missing from files older than PyTorch 0.4.1.
_COUNTER = "num_batches_tracked"

# Where a checkpoint keeps its state dict.
_CHECKPOINT_KEYS = ("state_dict", "model_state_dict", "model")

# The numbers in "conv2", "branch3x3_2a" and "Mixed_5b", with the letter of each.
_NUMBER = re.compile(r"(\d+)([a-z](?![a-z0-9]))?")


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the norm of the difference of two tensors, divided by the norm of theirs.

    Raises:
        ValueError: They are not floating-point tensors of one shape.
    """
    pair = ours, theirs
    if not all(isinstance(x, Tensor) and x.is_floating_point() and not x.is_meta for x in pair):
        raise ValueError("ours and theirs must be floating-point tensors: try net(images)")
    if ours.shape != theirs.shape:
        raise ValueError(
            f"ours and theirs must have one shape, but have {tuple(ours.shape)} and "
            f"{tuple(theirs.shape)}: try the same images in both networks"
        )
    if theirs.count_nonzero() == 0:
        raise ValueError("theirs must not be all 0, which nothing is relative to: try other images")
    return ((ours - theirs).norm() / theirs.norm()).item()


def read(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from a file, without running any code in it.

    A PyTorch file is an archive of tensors and of instructions that assemble them. Those can call
    any function, so a file from a stranger could do anything; here only calls that build tensors
    are allowed. The checksums in the file are verified, too. A safetensors file has neither
    instructions nor checksums.

    Args:
        path: A file that `torch.save(net.state_dict(), path)` wrote, or a safetensors file. From a
            checkpoint, its "state_dict", "model_state_dict" or "model" is read.

    Returns:
        A dictionary from names to tensors, on the CPU; sorted by name if it comes from safetensors.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is truncated or damaged, would run code, or holds something else.
    """
    import safetensors.torch  # here, since training does not need it

    _require_file(path)
    size = Path(path).stat().st_size
    with open(path, "rb") as file:  # outside the try: a missing file is Python's own error
        start = file.read(9)
    damaged, code = None, []
    try:
        if start[8:] == b"{":  # a safetensors file: the length of its header, then the header
            found = safetensors.torch.load(Path(path).read_bytes())
            found = {name: found[name] for name in sorted(found)}
        else:
            if zipfile.is_zipfile(path):  # until 2020 torch wrote another format
                with zipfile.ZipFile(path) as archive:
                    if sum(entry.file_size for entry in archive.infolist()) > size:
                        raise ValueError("it unpacks to more than torch.save would write")
                    damaged = archive.testzip()
                code = sorted(get_unsafe_globals_in_checkpoint(path))
            found = {} if damaged or code else torch.load(path, "cpu", weights_only=True)
    except Exception:  # garbage raises anything, and torch's message advises unsafe loading
        raise ValueError(
            f"{path} must hold only tensors, but it is truncated, damaged or would run code. "
            "Nothing in it was run: fetch or save it again"
        ) from None
    if damaged:
        raise ValueError(f"{path} is damaged in {damaged}: fetch or save it again")
    if code:
        raise ValueError(
            f"{path} must hold only tensors, but it would run {', '.join(code[:3])}. Nothing in "
            "it was run: ask for a file that torch.save(net.state_dict(), path) wrote"
        )
    found = _without_checkpoint(found)
    if not _is_state_dict(found) or not found:
        culprits = _no_tensors(found)[:5] if isinstance(found, dict) else type(found).__name__
        raise ValueError(
            f"{path} must hold a state dict, a tensor for each name, but it holds {culprits}: save "
            "net.state_dict() alone"
        )
    for name, value in found.items():
        if value.numel() * value.element_size() > size:
            raise ValueError(
                f"{path} must hold all numbers of its tensors, but it has {size:,} bytes, too few "
                f"for {name} {tuple(value.shape)}: save its .contiguous()"
            )
    return found


def load(
    net: nn.Module,
    state_dict: Mapping[str, Tensor],
    layout: str = "torchvision",
    skip_head: bool = False,
) -> list[str]:
    """Load published weights into a network and return the names that were skipped.

    Auxiliary heads that the network lacks are skipped. A network for grey images takes a colour
    stem summed over its 3 channels: it then answers as the published one does to the grey image
    repeated 3 times. Prefixes that all names share, such as "module.", are ignored, and files older
    than PyTorch 0.4.1 may lack num_batches_tracked.

    Args:
        net: One of our models.
        state_dict: The `state_dict()` of the published network or of one of ours, or a checkpoint
            that contains it. A file may have sorted its names.
        layout: The library that the names come from, "torchvision" or "timm".
        skip_head: Whether to leave out all that depends on the number of classes: the last linear
            layer and the auxiliary heads.

    Raises:
        ValueError: The layout is unknown, state_dict is not a state dict, entries are missing,
            unexpected, not finite or of another shape, or their order is lost. Nothing is loaded.
    """
    check_flags(skip_head=skip_head)
    if not isinstance(layout, str) or layout not in _THEIRS:
        raise ValueError(f"layout={layout!r} must be 'torchvision' or 'timm': try 'torchvision'")
    state_dict = _require_state_dict(net, state_dict)
    ours, our_prefix = _without_prefix(net.state_dict())
    theirs, their_prefix = _without_prefix(state_dict)
    if not any(name.endswith(_COUNTER) for name in theirs):
        ours = {name: value for name, value in ours.items() if not name.endswith(_COUNTER)}
    our_body, our_auxiliary = _split(ours, _OURS)
    their_body, their_auxiliary = _split(theirs, _OURS + _THEIRS[layout])
    wanted, given = _kinds(ours), _kinds(theirs)
    _take_colour_for_grey(our_body, wanted, given)
    head = our_body[-2:] if skip_head else []
    if head:
        _take_any_head(head, our_body, their_body, wanted, given)
    pairs, skipped = _pair(our_body, their_body, wanted, given), their_auxiliary
    if our_auxiliary and not skip_head:
        pairs, skipped = pairs + _pair(our_auxiliary, their_auxiliary, wanted, given), []
    if any(wanted.get(name) != given.get(other) for name, other in pairs):
        raise ValueError(_explain(_misfits(pairs, wanted, given), net, ours, theirs))

    _require_finite({o: (theirs[o], ours[n]) for n, o in pairs if n not in head})
    loaded = net.state_dict()
    for name, other in pairs:
        value = theirs[other]
        if name not in head:
            if value.shape != ours[name].shape:  # a colour stem
                value = value.to(ours[name].dtype).sum(dim=1, keepdim=True)
            loaded[our_prefix + name] = value
    net.load_state_dict(loaded)
    skipped = [other for name, other in pairs if name in head] + skipped
    return [their_prefix + other for other in skipped]


# The given state dict


def _without_checkpoint(found):
    """Return the state dict in a checkpoint, or the argument itself if there is none."""
    if not isinstance(found, Mapping):
        return found
    inside = [found[key] for key in _CHECKPOINT_KEYS if _is_state_dict(found.get(key))]
    return inside[0] if len(inside) == 1 else found


def _require_file(path):
    """Refuse what is not the path of a file; to read a pipe or a device may never end."""
    try:
        named = isinstance(path, str | PathLike) and "\0" not in str(path)
        fits = named and (Path(path).is_file() or not Path(path).exists())
    except OSError:  # the name is too long
        fits = False
    if not fits:
        raise ValueError(
            f"path={path!r} must be the path of a file, not of a folder, a pipe or a device: "
            "try weights.read('net.pt')"
        )


def _require_finite(values):
    """Refuse values, each given with the weight that it replaces, which are no finite numbers."""
    for name, (value, own) in values.items():
        fits = value.is_floating_point() and value.layout is torch.strided
        fits = fits and (value.is_meta or value.to(own.dtype).isfinite().all())
        if own.is_floating_point() and (not fits or value.is_meta > own.is_meta):
            raise ValueError(
                f"state_dict must hold finite floating-point numbers, but not all of {name} are "
                f"({value.dtype}, {value.layout}, {value.device}): try another file"
            )


def _is_state_dict(found):
    return isinstance(found, Mapping) and not _no_tensors(found)


def _no_tensors(found):
    """List the names of entries that are not tensors, and names that are not text."""
    return [n for n, x in found.items() if not (isinstance(n, str) and isinstance(x, Tensor))]


def _require_state_dict(net, state_dict):
    """Return the state dict in the argument, or say which line to type instead."""
    if not isinstance(net, nn.Module) or not hasattr(net, "_modules"):
        raise ValueError(
            f"net must be a network, but its type is {type(net).__name__}: try "
            "weights.load(net, state_dict)"
        )
    if not net.state_dict() or any(map(is_lazy, net.parameters())):
        raise ValueError(
            f"net={type(net).__name__} must have weights, but it has none yet: build its layers, "
            "and run lazy ones once"
        )
    state_dict = _without_checkpoint(state_dict)
    if not isinstance(state_dict, Mapping):
        raise ValueError(
            f"state_dict must map names to tensors, but its type is {type(state_dict).__name__}: "
            "try weights.load(net, weights.read(path)) with a file, or "
            "weights.load(net, other.state_dict()) with a network"
        )
    if culprits := _no_tensors(state_dict):
        inside = [name for name in culprits if _is_state_dict(state_dict[name])]
        remedy = f"state_dict[{inside[0]!r}]" if inside else "other.state_dict()"
        raise ValueError(
            f"state_dict must map text to tensors, but {culprits[0]!r} has the type "
            f"{type(state_dict[culprits[0]]).__name__}: try weights.load(net, {remedy})"
        )
    return state_dict


def _without_prefix(entries):
    """Return the entries without the modules that all names begin with, and that prefix."""
    prefix = ""
    for parts in zip(*(name.split(".")[:-1] for name in entries), strict=False):
        if len(set(parts)) > 1:
            break
        prefix += f"{parts[0]}."
    return {name.removeprefix(prefix): value for name, value in entries.items()}, prefix


def _split(names, prefix):
    """Separate the names of the auxiliary heads from the others; both stay in order."""
    auxiliary = [name for name in names if name.startswith(prefix)]
    return [name for name in names if not name.startswith(prefix)], auxiliary


# Layers and their order


def _kinds(entries):
    """Return the role of each entry, such as running_mean, and its shape."""
    return {name: (name.rpartition(".")[2], value.shape) for name, value in entries.items()}


def _alike(names, kinds):
    """Group the layers by kind, which is their roles and shapes; they stay in order."""
    layers, alike = defaultdict(set), defaultdict(list)
    for name in names:
        layers[name.rpartition(".")[0]].add(kinds[name])
    for layer, entries in layers.items():
        alike[frozenset(entries)].append(layer)
    return alike


def _take_colour_for_grey(names, wanted, given):
    """Expect 3 channels in a first weight of 1 channel, if only such a weight is given."""
    for stem in names[:1]:
        role, shape = wanted[stem]
        colour = role, (*shape[:1], 3, *shape[2:])
        if shape[1:2] == (1,) and colour in given.values() and wanted[stem] not in given.values():
            wanted[stem] = colour


def _take_any_head(head, names, others, wanted, given):
    """Expect in the last layer the shapes of the only given layer without a partner."""
    ours, theirs = _alike(names[: -len(head)], wanted), _alike(others, given)
    left = [kind for kind in theirs for _ in range(len(theirs[kind]) - len(ours[kind]))]
    roles = {wanted[name][0]: name for name in head}
    if len(left) == 1 and dict(left[0]).keys() == roles.keys():
        wanted.update({roles[role]: (role, shape) for role, shape in left[0]})


def _pair(names, others, wanted, given):
    """Pair entries by name, or else in the only order in which all of them fit.

    That is the given order, unless it is merely sorted by name, or the order of the numbers in the
    names. Pairs that do not fit are also returned, for the refusal to show.
    """
    pairs = list(zip_longest(names, others))
    if set(names) == set(others):
        return [(name, name) for name in names]
    if Counter(wanted[name] for name in names) != Counter(given[other] for other in others):
        return pairs
    fits = all(wanted[name] == given[other] for name, other in pairs)
    orders = [others] if fits and others != sorted(others) else []
    orders += _numbered(names, others, wanted, given)
    orders = [order for order in orders if _stand_together(order)]
    if not orders:
        raise ValueError(
            "state_dict must have the order of its network, but the order is lost, as in a file "
            "that was sorted by name. Load the published network first, "
            "published.load_state_dict(state_dict), and try "
            "weights.load(net, published.state_dict())"
        )
    for one, other in zip(orders[0], orders[-1], strict=True):
        if one != other:
            raise ValueError(
                f"state_dict must tell {other} from {one}, but both fit in the same place. Its "
                "names are not in the order of their numbers. If they are in that of the network, "
                "try weights.load(net, dict(zip(net.state_dict(), state_dict.values())))"
            )
    return list(zip(names, orders[0], strict=True))


def _numbered(names, others, wanted, given):
    """Return the order in which the layers of each kind follow their numbers, in a list.

    Numbers are compared across words, too: bn1 comes before conv2, and a layer before the larger
    stage of the same number. Names without a number, such as downsample, come last. The list is
    empty if numbers do not tell two layers apart.
    """
    ours, theirs, partners = _alike(names, wanted), _alike(others, given), {}
    sizes = Counter(module for other in others for module in _modules(other))

    def rank(layer):
        for module in _modules(layer):
            numbers = [(int(n), letter) for n, letter in _NUMBER.findall(module.split(".")[-1])]
            yield numbers[:1] or [(math.inf, "")], sizes[module], numbers

    for kind, layers in theirs.items():
        ranks = {layer: list(rank(layer)) for layer in layers}
        in_order = sorted(layers, key=ranks.get)
        tied = any(ranks[one] == ranks[other] for one, other in pairwise(in_order))
        if tied or len(layers) != len(ours[kind]):
            return []
        partners.update(zip(ours[kind], in_order, strict=True))
    parts = [name.rpartition(".") for name in names]
    return [[f"{partners[layer]}.{role}".removeprefix(".") for layer, _, role in parts]]


def _modules(name):
    """Return the names of the modules around an entry or layer, and its own, outermost first."""
    return accumulate(name.split("."), "{}.{}".format)


def _stand_together(names):
    """Return whether the entries of every module are contiguous."""
    depths = range(max(name.count(".") for name in names))
    around = [[name.split(".")[: depth + 1] for name in names] for depth in depths]
    runs = [[tuple(module) for module, _ in groupby(modules)] for modules in around]
    return all(len(modules) == len(set(modules)) for modules in runs)


# Refusals


def _misfits(pairs, wanted, given):
    """Return the fewest pairs in which the sides differ: one gap does not shift all that follows.

    Both sides are compared in their own order, by name, and by kind alone.
    """
    names = [name for name, _ in pairs if name]
    others = [other for _, other in pairs if other]
    named = [{name: (name, kinds[name]) for name in kinds} for kinds in (wanted, given)]
    ways = [
        _differences(names, others, wanted, given),
        _differences(sorted(names), sorted(others), *named),
        _differences(sorted(names, key=wanted.get), sorted(others, key=given.get), wanted, given),
    ]
    return min(filter(None, ways), key=len)


def _differences(names, others, wanted, given):
    """Return the pairs in which two lists of names differ."""
    keys = [wanted[name] for name in names], [given[other] for other in others]
    return [
        pair
        for step, i, j, m, n in SequenceMatcher(None, *keys, autojunk=False).get_opcodes()
        if step != "equal"
        for pair in zip_longest(names[i:j], others[m:n])
    ]


def _explain(misfits, net, ours, theirs):
    """Show the first misfits side by side, count them, and say what to try."""
    lines = [
        f"  {_describe(name, ours):<50} {_describe(other, theirs)}" for name, other in misfits[:5]
    ]
    if len(misfits) > 5:
        lines.append(f"  and {len(misfits) - 5} more")
    body, _ = _split(ours, _OURS)
    ends = tuple(name[: name.rfind(".") + 1] for name in body[:1] + body[-1:])  # stem and head
    remedy = (
        "the in_channels and num_classes of the published network, or skip_head=True"
        if all(name and name.startswith(ends + _OURS) for name, _ in misfits)
        else "the network that these weights belong to, such as models.resnet34 for a ResNet-34"
    )
    return (
        f"state_dict does not fit {type(net).__name__} in {len(misfits)} entries, and nothing was "
        "loaded. The left column is what the network has, the right one what it was given:\n"
        + "\n".join([*lines, f"Try {remedy}."])
    )


def _describe(name, entries):
    """Write a name and its shape: `fc.weight (10, 512)`."""
    return "missing" if name is None else f"{name} {tuple(entries[name].shape)}"
