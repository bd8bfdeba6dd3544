"""Weights from files, and published ones in networks that name their layers otherwise.

Entries are paired by name where both sides have the same names. Otherwise they are paired by order,
since our networks register their layers in the order of the published code. A file may have lost
that order: safetensors sorts by name. So each order that the names allow is held against the roles
and shapes of our entries, and weights are loaded only if one order is left.
"""

import re
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from difflib import SequenceMatcher
from itertools import zip_longest
from pathlib import Path

import torch
from torch import nn
from torch.serialization import get_unsafe_globals_in_checkpoint

# How the names in the auxiliary heads start.
OURS = ("auxiliary",)
THEIRS = {"torchvision": ("AuxLogits.", "aux1.", "aux2."), "timm": ("AuxLogits.",)}

# What files from before PyTorch 0.4.1 do not hold.
COUNTER = "num_batches_tracked"

# Where a checkpoint keeps its state dict.
CHECKPOINT_KEYS = ("state_dict", "model_state_dict", "model")

# The numbers in "conv2", "branch3x3_2a" and "Mixed_5b", each with its letter.
NUMBER = re.compile(r"(\d+)([a-z](?![a-z0-9]))?")


def read(path):
    """Read a state dict from a file, and run nothing that may lie in it.

    A file of PyTorch is an archive of tensors and of instructions that put them together. Those can
    call any function, so a file from a stranger could do anything: here only the calls that make
    tensors are obeyed. The checksums in the file are compared, too. A safetensors file has neither
    instructions nor checksums.

    Args:
        path: A file that `torch.save(net.state_dict(), path)` wrote, or a safetensors file. Of a
            checkpoint its "state_dict", "model_state_dict" or "model" is read.

    Returns:
        A dictionary from names to tensors, on the CPU; sorted by name if it comes from safetensors.

    Raises:
        ValueError: The file is cut off or damaged, would run code, or holds something else.
    """
    import safetensors.torch  # here, since networks train without it

    with open(path, "rb") as file:  # of a file that is not there, Python's own error speaks
        start = file.read(9)
    damaged, code = None, []
    try:
        if start[8:] == b"{":  # after its length, the header of a safetensors file
            found = safetensors.torch.load(Path(path).read_bytes())
            found = {name: found[name] for name in sorted(found)}
        else:
            damaged, code = _inspect(path)
            found = {} if damaged or code else torch.load(path, "cpu", weights_only=True)
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
    found = _without_checkpoint(found)
    if not _is_state_dict(found):
        culprits = _no_tensors(found)[:5] if isinstance(found, dict) else type(found).__name__
        raise ValueError(
            f"{path} must hold a state dict, a tensor for each name, and it holds {culprits}: save "
            "net.state_dict() alone"
        )
    return found


def _inspect(path):
    """Return the part of an archive whose checksum is wrong, and the functions it would call."""
    if not zipfile.is_zipfile(path):  # torch wrote another format until 2020
        return None, []
    with zipfile.ZipFile(path) as archive:
        return archive.testzip(), sorted(get_unsafe_globals_in_checkpoint(path))


def _without_checkpoint(found):
    """Return the state dict that lies in a checkpoint, or else what was given."""
    if not isinstance(found, Mapping):
        return found
    inside = [found[key] for key in CHECKPOINT_KEYS if _is_state_dict(found.get(key))]
    return inside[0] if len(inside) == 1 else found


def _is_state_dict(found):
    """Tell whether this is a dictionary from names to tensors."""
    return isinstance(found, Mapping) and not _no_tensors(found)


def _no_tensors(found):
    """List the names of what is no tensor."""
    return [name for name, value in found.items() if not isinstance(value, torch.Tensor)]


def load(net, state_dict, layout="torchvision", skip_head=False):
    """Load published weights into a network and return the names that were skipped.

    Auxiliary heads that the network was built without are skipped. A network for grey images takes
    a colour stem summed over its 3 channels: it answers as the published one does to the grey image
    repeated 3 times. Prefixes that all names share, such as "module.", do not count, and files from
    before PyTorch 0.4.1 may leave num_batches_tracked out.

    Args:
        net: One of our models.
        state_dict: What `state_dict()` of the published network or of one of ours returns, or a
            checkpoint around it. A file may have sorted its names.
        layout: Whose code the names come from, "torchvision" or "timm".
        skip_head: Leave what depends on the number of classes as it is: the last linear layer and
            all auxiliary heads.

    Raises:
        ValueError: The layout is unknown, state_dict is no state dict, entries are missing,
            unexpected or of another shape, or more than one order of them would fit. Nothing is
            loaded then.
    """
    if layout not in THEIRS:
        raise ValueError(f"layout={layout!r} must be 'torchvision' or 'timm': try 'torchvision'")
    state_dict = _require_state_dict(net, state_dict)
    ours, our_prefix = _without_prefix(net.state_dict())
    theirs, their_prefix = _without_prefix(state_dict)
    if not any(name.endswith(COUNTER) for name in theirs):
        ours = {name: value for name, value in ours.items() if not name.endswith(COUNTER)}
    our_body, our_auxiliary = _split(ours, OURS)
    their_body, their_auxiliary = _split(theirs, OURS + THEIRS[layout])
    wanted, given = _kinds(ours), _kinds(theirs)
    _take_colour_for_grey(our_body, wanted, given)
    head = our_body[-2:] if skip_head else []

    def fits(name, other):
        role, shape = given.get(other, (None, None))
        return wanted.get(name) == (role, shape) or (name in head and wanted[name][0] == role)

    pairs, skipped = _pair(our_body, their_body, fits), their_auxiliary
    if our_auxiliary and not skip_head:
        pairs, skipped = pairs + _pair(our_auxiliary, their_auxiliary, fits), []
    if not all(fits(*pair) for pair in pairs):
        misfits = _misfits(pairs, wanted, given)
        misfits = [pair for pair in misfits if pair[0] not in head] or misfits
        raise ValueError(_explain(misfits, net, ours, theirs))

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


def _require_state_dict(net, state_dict):
    """Return the state dict in what was given, or say which line to type instead."""
    if not isinstance(net, nn.Module):
        raise ValueError(
            f"net must be a network, and its type is {type(net).__name__}: try "
            "weights.load(net, state_dict)"
        )
    state_dict = _without_checkpoint(state_dict)
    if not isinstance(state_dict, Mapping):
        raise ValueError(
            f"state_dict must map names to tensors, and its type is {type(state_dict).__name__}: "
            "try weights.load(net, weights.read(path)) with a file, or "
            "weights.load(net, other.state_dict()) with a network"
        )
    if culprits := _no_tensors(state_dict):
        inside = [name for name in culprits if _is_state_dict(state_dict[name])]
        remedy = f"state_dict[{inside[0]!r}]" if inside else "other.state_dict()"
        raise ValueError(
            f"state_dict must hold a tensor for each name, and {culprits[0]!r} has the type "
            f"{type(state_dict[culprits[0]]).__name__}: try weights.load(net, {remedy})"
        )
    return state_dict


def _without_prefix(entries):
    """Return entries without the modules that all names begin with, and what was left out."""
    prefix = ""
    for parts in zip(*(name.split(".")[:-1] for name in entries), strict=False):
        if len(set(parts)) > 1:
            break
        prefix += f"{parts[0]}."
    return {name.removeprefix(prefix): value for name, value in entries.items()}, prefix


def _split(names, prefix):
    """Part the names of the auxiliary heads from the others; both keep their order."""
    auxiliary = [name for name in names if name.startswith(prefix)]
    return [name for name in names if not name.startswith(prefix)], auxiliary


def _kinds(entries):
    """Return the role of each entry, such as running_mean, and its shape."""
    return {name: (name.rpartition(".")[2], value.shape) for name, value in entries.items()}


def _take_colour_for_grey(names, wanted, given):
    """Want 3 channels for a first weight of 1 channel, if only that is given."""
    for stem in names[:1]:
        role, shape = wanted[stem]
        colour = role, (*shape[:1], 3, *shape[2:])
        if shape[1:2] == (1,) and colour in given.values() and wanted[stem] not in given.values():
            wanted[stem] = colour


def _pair(names, others, fits):
    """Pair entries by name, or else in the only order in which all of them fit.

    Where more than one order fits, the given one counts if it is among them, unless it is sorted by
    name. Where none fits, the pairs are those of the given one, for the refusal to show.
    """
    if set(names) == set(others):
        return [(name, name) for name in names]
    pairs = list(zip_longest(names, others))
    if len(names) != len(others):
        return pairs
    orders = _orders(others, lambda other, place: fits(names[place], other))
    has_order = all(fits(*pair) for pair in pairs) and others != sorted(others)
    if has_order:
        orders = [others] if others in orders else [*orders[:1], others]
    if len(orders) > 1:
        raise ValueError(_explain_orders(*orders, has_order))
    return list(zip(names, orders[0], strict=True)) if orders else pairs


def _orders(given, fits):
    """Return the orders in which a network may have registered its entries, two at most.

    The entries of a module stand together, and modules whose names differ in their numbers alone,
    as conv1 and conv2 do, follow the numbers. All orders count in which each entry fits its place.
    If a module has more than one, numbers are compared across other words, too: conv1 and bn1 come
    before conv2, layers before the stage of their number, and last what has none, as downsample.

    Args:
        given: The names as they came. If their order is among those returned, it is the first.
        fits: Tells whether a name may stand at a place.
    """

    def arrange(names, start, depth, across_words=False):
        """Arrange the entries of one module from the place `start` on."""
        if names[0].count(".") < depth:
            return [names] if fits(names[0], start) else []
        children, rows = defaultdict(list), defaultdict(list)
        for name in names:
            children[name.split(".")[depth]].append(name)
        for child in sorted(children, key=_numbers):
            rows[NUMBER.sub("#", child)].append(child)

        def rank(row):
            return _numbers(row[0])[0], max(name.count(".") for name in children[row[0]])

        # At each step one row gives its next child. Two orders of the same children are enough.
        orders = {tuple(map(tuple, rows.values())): [[]]}
        for _ in children:
            longer = defaultdict(list)
            for left, heads in orders.items():
                first = min(rank(row) for row in left if row)
                for i, row in enumerate(left):
                    if not row or (across_words and rank(row) > first):
                        continue
                    tails = arrange(children[row[0]], start + len(heads[0]), depth + 1)
                    rest = (*left[:i], row[1:], *left[i + 1 :])
                    longer[rest] += [head + tail for head in heads for tail in tails]
            for found in longer.values():
                found.sort(key=lambda order: order != given[start : start + len(order)])
            orders = {rest: found[:2] for rest, found in longer.items() if found}
        found = next(iter(orders.values()), [])
        if len(found) > 1 and not across_words:
            return arrange(names, start, depth, across_words=True) or found
        return found

    return arrange(given, 0, 0)


def _numbers(name):
    """Return the numbers in the name of a module, or infinity."""
    return [(int(n), letter) for n, letter in NUMBER.findall(name)] or [(float("inf"), "")]


def _explain_orders(one_order, other_order, has_order):
    """Name the first two entries that could change places, and say what to try."""
    pairs = zip(one_order, other_order, strict=True)
    one, other = next(pair for pair in pairs if pair[0] != pair[1])
    remedy = (
        "Its names are not in the order of their modules and numbers. If they are in that of the "
        "network, try "
        "weights.load(net, dict(zip(net.state_dict(), state_dict.values())))"
        if has_order
        else "Its order is lost, as in a file that was sorted by name. Load the published network "
        "first, published.load_state_dict(state_dict), and try "
        "weights.load(net, published.state_dict())"
    )
    return f"state_dict must tell {one} from {other}, and both fit in the same place. {remedy}"


def _misfits(pairs, wanted, given):
    """Return the fewest pairs that tell both sides apart: one gap does not shift all that follows.

    Both sides are compared in their order, by name, and by kind, where neither counts.
    """
    names = [name for name, _ in pairs if name]
    others = [other for _, other in pairs if other]
    named = [{name: (name, kinds[name]) for name in kinds} for kinds in (wanted, given)]
    by_kind = sorted(names, key=wanted.get), sorted(others, key=given.get)
    ways = [
        _differences(names, others, wanted, given),
        _differences(sorted(names), sorted(others), *named),
        _differences(*by_kind, wanted, given),
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
