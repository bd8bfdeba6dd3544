"""The display of a training run: progress bar, one row per epoch, loss curve.

matplotlib, IPython and tqdm are imported where they are used, so a run in a terminal, or one that
is measured, starts without them.
"""

import math
import os
import sys
import time
from base64 import b64encode
from html import escape
from typing import Any

SECONDS_BETWEEN_UPDATES = 2  # in a notebook, where drawing the curve takes 0.1 s

_COLUMNS = {
    "epoch": "{.epoch}",
    "train loss": "{.train_loss:.4f}",
    "train acc": "{.train_accuracy:.4f}",
    "test loss": "{.test_loss:.4f}",
    "test acc": "{.test_accuracy:.4f}",
    "images/s": "{.images_per_second:,.0f}",
    "seconds": "{.seconds:.1f}",
}
HEADER = "  ".join(_COLUMNS)


def row_text(row: Any) -> str:
    """Return a row of a History as text, aligned with HEADER."""
    return "  ".join(f"{cell:>{len(name)}}" for name, cell in _cells(row).items())


def _cells(row):
    """Return the numbers of a row as text, by the name of their column."""
    return {name: number.format(row) for name, number in _COLUMNS.items()}


def show_progress(history: Any, plot: bool, silent: bool = False) -> "ProgressDisplay":
    """Return the display of a training run.

    With the environment variable CNNLIB_LIVE=0, only rows and the final state are shown.

    Args:
        history: The History that the run will fill, with any epochs that were completed before.
        plot: Whether a notebook shows a table and the loss curve. False: one line per epoch.
        silent: Whether to show nothing, because another process of this run does.
    """
    if silent:
        return ProgressDisplay(history)
    if not in_notebook():
        return _Terminal(history)
    return _Notebook(history) if plot else _Lines(history)


class ProgressDisplay:
    """The base of the displays: it is told how a run proceeds, and shows nothing."""

    def __init__(self, history: Any):
        self.history = history

    def after_batch(self) -> None:
        """Record that a batch is done."""

    def after_epoch(self) -> None:
        """Record that the history has gained a row."""

    def close(self) -> None:
        """Record that the run has ended, for whatever reason."""


class _Lines(ProgressDisplay):
    """One line per epoch and no header, so that several short runs in one cell stay readable."""

    def __init__(self, history):
        super().__init__(history)
        if history.banner:
            print(history.banner)
        for row in history.rows:
            self._print(row)

    def after_epoch(self):
        self._print(self.history.last)

    def _print(self, row):
        print(", ".join(f"{name} {cell}" for name, cell in _cells(row).items()))

    def close(self):
        if self.history.interrupted or _has_exploded(self.history):
            print(_conclusion(self.history))


class _Terminal(_Lines):
    """A table that grows above a bar."""

    def __init__(self, history):
        from tqdm import tqdm

        self.history = history
        print(history)
        if 0 < len(history.rows) < history.recipe["epochs"]:
            print(f"continuing after epoch {history.last.epoch}")
        live = os.environ.get("CNNLIB_LIVE") != "0"
        done, total = len(history.losses), history.recipe["epochs"] * history.recipe["batches"]
        self.bar = tqdm(initial=done, total=total, unit="batch", leave=False, disable=not live)

    def after_batch(self):
        if self.history.losses:
            self.bar.set_postfix_str(f"loss={self.history.losses[-1]:.3f}", refresh=False)
        self.bar.update()

    def after_epoch(self):
        self.bar.write(row_text(self.history.last))

    def close(self):
        self.bar.close()
        super().close()


class _Notebook(ProgressDisplay):
    """One cell output, updated in place: table, picture, and a bar until the run ends."""

    def __init__(self, history):
        super().__init__(history)
        self.batches, self.handle, self.next_update = len(history.losses), None, math.inf
        if os.environ.get("CNNLIB_LIVE") != "0":
            self._update()

    def after_batch(self):
        self.batches += 1
        if time.perf_counter() >= self.next_update:
            self._update()

    def _update(self):
        self._show(running=True)
        self.next_update = time.perf_counter() + SECONDS_BETWEEN_UPDATES

    def close(self):
        self._show(running=False)

    def _show(self, running):
        from IPython.display import display

        from cnnlib import plots

        history, conclusion = self.history, _conclusion(self.history)
        heading = escape(f"{history.banner}\n{history.title}".strip()).replace("\n", "<br>")
        parts = [heading, _table_html(history.rows)]
        bundle = {"text/plain": f"{history}\n{conclusion}".rstrip()}
        if running:
            done, planned = self.batches, history.recipe["epochs"] * history.recipe["batches"]
            bar = f'<progress value="{done}" max="{planned}"></progress>'
            parts.append(f"<label>{bar} batch {done:,} of {planned:,}</label>")
        if history.losses:
            batches = history.recipe["batches"]
            figure = plots.loss_curve(history.losses, batches) if running else history.plot()
            quantities = " and ".join(axes.get_title("left") for axes in figure.axes)
            parts.append(plots.image_html(figure, f"{quantities}. {conclusion}".rstrip()))
            if not running:  # for a viewer that strips HTML
                bundle["image/png"] = b64encode(plots.png(figure)).decode()
        parts.append(f"<em>{conclusion}</em>")
        bundle["text/html"] = "".join(f"<div>{part}</div>" for part in parts)
        if self.handle is None:
            self.handle = display(bundle, raw=True, display_id=True)
        else:
            self.handle.update(bundle, raw=True)


def _table_html(rows):
    """Return rows as an HTML table."""
    lines = ["".join(f"<th>{name}</th>" for name in _COLUMNS)]
    lines += ["".join(f"<td>{cell}</td>" for cell in _cells(row).values()) for row in rows]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _conclusion(history):
    """Return how far a run got."""
    done, planned = len(history.rows), history.recipe["epochs"]
    sentences = []
    if history.interrupted:
        sentences.append(f"Stopped: {done} of {planned} epochs were completed.")
    if done:
        sentences.append(f"Test accuracy {history.last.test_accuracy:.3f} after epoch {done}.")
    if _has_exploded(history):
        sentences.append(
            f"The training loss exploded to {history.last.train_loss:.3g}: try a smaller learning "
            f"rate, such as lr={min(history.recipe['lr'] / 10, 0.1):g}."
        )
    return " ".join(sentences)


def _has_exploded(history):
    """Return whether the last epoch's training loss is above 1000, and 1000 times the first one."""
    limit = 1000 * max([1, *history.losses[:1]])
    return any(row.train_loss > limit for row in history.rows[-1:])


def in_notebook() -> bool:
    """Return whether a Jupyter kernel runs this code, so that it can show pictures."""
    shell = sys.modules.get("IPython")  # a kernel has imported it
    return shell is not None and hasattr(shell.get_ipython(), "kernel")
