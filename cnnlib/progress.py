"""What moves while a network trains: a bar, a curve, a row per epoch.

matplotlib, IPython and tqdm are imported where they are used: a training in a terminal, or one
that is measured, starts without them.
"""

import os
import sys
import time

SECONDS_BETWEEN_LOOKS = 2  # each look at the loss makes the CPU wait for the device


class Live:
    """Shows a training run: call `after_batch`, `after_epoch`, and `close` whatever happens.

    In a notebook the curve is redrawn in place; the last picture stays, with a caption. With the
    environment variable CNNLIB_LIVE=0 nothing moves: only the rows and the last picture are shown.

    Args:
        history: The History that the run fills.
        batches: Batches in an epoch.
        plot: Draw the curves, in a notebook.
        silent: Show nothing, and never look: another process of this run does.
    """

    def __init__(self, history, batches, plot, silent=False):
        self.history = history
        self.batches = batches
        self.silent = silent
        self.moving = os.environ.get("CNNLIB_LIVE") != "0" and not silent
        self.plot = plot and in_notebook() and not silent
        self.handle = None
        self.looked = time.perf_counter()
        if not silent:
            print(*filter(None, [history.banner, history.title, history.header()]), sep="\n")
        from tqdm.auto import tqdm  # it looks for widgets, which takes a second

        total = history.recipe["epochs"] * batches
        self.bar = tqdm(total=total, unit="batch", leave=False, disable=not self.moving)

    def after_batch(self, tally):
        """Move the bar. Every two seconds, look at the loss and move the curve."""
        self.bar.update()
        if self.silent or time.perf_counter() - self.looked < SECONDS_BETWEEN_LOOKS:
            return
        losses = self.history.losses + tally.read()
        self.bar.set_postfix(loss=f"{losses[-1]:.3f}")
        if self.plot and self.moving:
            from cnnlib import plots

            self.draw(plots.loss_curve(losses, self.batches), "the training loss of each batch")
        self.looked = time.perf_counter()

    def after_epoch(self):
        """Print the row of the epoch."""
        if not self.silent:
            self.bar.write(self.history.row(self.history.rows[-1]))

    def close(self):
        """Remove the bar and leave the picture of the whole run."""
        self.bar.close()
        rows = self.history.rows
        if self.history.interrupted and not self.silent:
            print(f"Stopped: {len(rows)} of {self.history.recipe['epochs']} epochs were completed.")
        if not (self.plot and rows):
            return
        recipe, last = self.history.recipe, rows[-1]
        conclusion = (
            f"{recipe['net']} on {recipe['data']}: test accuracy {last['test_accuracy']:.3f} "
            f"after epoch {last['epoch']}."
        )
        content = "Loss and accuracy over the epochs" if len(rows) > 1 else "The loss of each batch"
        self.draw(self.history.plot(), f"{content}. {conclusion}")
        from IPython.display import Markdown, display

        display(Markdown(f"*{conclusion}*"))

    def draw(self, figure, alt):
        """Show a figure in the place of the one before."""
        from IPython.display import Image, display

        from cnnlib import plots

        image = Image(data=plots.png(figure), alt=alt)
        if self.handle is None:
            self.handle = display(image, display_id=True)
        else:
            self.handle.update(image)


def in_notebook():
    """Say whether a Jupyter kernel runs this code, so that pictures have somewhere to go."""
    shell = sys.modules.get("IPython")  # a kernel has imported it
    return shell is not None and hasattr(shell.get_ipython(), "kernel")
