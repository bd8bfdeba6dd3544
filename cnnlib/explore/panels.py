"""What a step of a walk shows: the words and the grids, for a figure and for the player."""

from dataclasses import dataclass

import numpy as np

# The cells of this step have a thick frame, unused ones are hatched, those outside the data are
# dashed: the colours (Okabe and Ito's, lightened) only repeat it.
ACTIVE, ACTIVE_FILL = "#D55E00", "#FDE3CC"
SOURCE_FILL, KERNEL_FILL, TARGET_FILL = "#D9ECF8", "#F6E9F1", "#D5EFE6"
GREY = "#6B6B6B"

MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
NO_BREAK = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True, eq=False)
class Panel:
    """A grid at one step; the arrays have the grid's shape.

    Attributes:
        label: the text above.
        fill: the colour of the cells of the data that show a number.
        texts: the numbers; cells without one yet are blank.
        others: cells that are not data, dashed.
        unused: cells that the walk never reads or writes, hatched.
        active: the cells of this step, framed.
        notes: small texts in the corners of cells.
    """

    label: str
    fill: str
    texts: np.ndarray
    others: np.ndarray
    unused: np.ndarray
    active: np.ndarray
    notes: np.ndarray

    @property
    def digit_size(self):
        """The font size, in sides of a cell, at which the longest number fits in."""
        return min(0.42, 1.1 / max(len(text) for text in self.texts.flat))


def source_panel(walk, index):
    """Show what is read, each cell of a window with its weight."""
    grid, cells = walk.source, walk.steps[index].reads
    weights = [TIMES + number(weight) for weight in walk.kernel.values.flat]
    return Panel(
        label(grid),
        SOURCE_FILL,
        texts=_texts(grid.values),
        others=~grid.data,
        unused=walk.never_read,
        active=grid.mask(cells),
        notes=_notes(grid, cells, weights),
    )


def target_panel(walk, index):
    """Show what is written, each cell of a window with its product."""
    grid, cells = walk.target, walk.steps[index].writes
    written = grid.mask(cell for step in walk.steps[: index + 1] for cell in step.writes)
    products = [_signed(product) for product in walk.products(index).flat]
    return Panel(
        label(grid),
        TARGET_FILL,
        texts=np.where(written | walk.never_written, _texts(walk.totals[index]), ""),
        others=~grid.data,
        unused=walk.never_written,
        active=grid.mask(cells),
        notes=_notes(grid, cells, products),
    )


def kernel_panel(walk):
    """Show the weights."""
    return _plain_panel(label(walk.kernel), KERNEL_FILL, walk.kernel.values)


def products_panel(walk, index):
    """Show what is read times the weights."""
    return _plain_panel("products", ACTIVE_FILL, walk.products(index))


def _plain_panel(label, fill, values):
    nowhere = np.zeros(values.shape, bool)
    no_notes = np.full(values.shape, "")
    return Panel(label, fill, _texts(values), nowhere, nowhere, nowhere, no_notes)


def _texts(values):
    return np.array([[number(value) for value in row] for row in values])


def _notes(grid, cells, texts):
    """Place the texts on the cells of a window; a single cell gets none."""
    notes = np.full(grid.values.shape, "", dtype=object)
    if is_window(cells):
        for cell, text in zip(cells, texts, strict=True):
            notes[cell] = text
    return notes


def is_window(cells):
    """Tell a window from a single cell that all taps share."""
    return len(set(cells)) > 1


def words(walk, index):
    """Say what a step computes."""
    place = f"step {index + 1} of {walk.frames}: "
    read = [walk.source.values[cell] for cell in walk.steps[index].reads]
    if is_window(walk.steps[index].writes):
        return f"{place}{number(read[0])} times every weight, added to the framed output cells"
    products = walk.products(index)
    terms = [number(product) for product in products.flat]
    if len(terms) <= 4:  # there is room for the factors
        factors = zip(read, walk.kernel.values.flat, strict=True)
        terms = [f"{number(value)}{TIMES}{number(weight)}" for value, weight in factors]
    # No-break spaces keep a sign and its term on one line.
    total = f" +{NO_BREAK}".join(terms).replace(f"+{NO_BREAK}{MINUS}", f"{MINUS}{NO_BREAK}")
    return f"{place}{total} ={NO_BREAK}{number(products.sum())}"


def label(grid):
    """Say what a grid is and how large."""
    rows, columns = grid.data.any(axis=1).sum(), grid.data.any(axis=0).sum()
    size = f"{grid.name} {rows} x {columns}"
    if grid.data.all():
        return size
    return f"{size}\n{grid.others}: {grid.data.shape[0]} x {grid.data.shape[1]}"


def key(walk):
    """Explain the marks that a walk shows."""
    marks = {
        "dashed: zeros put in": not walk.source.data.all(),
        "dashed: cut off by padding": not walk.target.data.all(),
        "hatched: never read": walk.never_read.any(),
        "hatched: never written": walk.never_written.any(),
    }
    return "     ".join(text for text, is_shown in marks.items() if is_shown)


def number(value):
    """Write a number with as few characters as show it: whole, or with two decimals."""
    text = str(int(value)) if value == int(value) else f"{value:.2f}"
    return text.replace("-", MINUS)


def _signed(value):
    return number(value) if value < 0 else f"+{number(value)}"
