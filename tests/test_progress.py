"""What is shown while a network trains. In most tests the display of a notebook is a list."""

import base64
import html
import json
import math
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from cnnlib import progress
from cnnlib.progress import HEADER, in_notebook, show_progress
from cnnlib.train import Epoch, History

ROW = Epoch(
    epoch=1,
    lr=0.1,
    train_loss=1.0,
    train_accuracy=0.5,
    test_loss=0.9,
    test_accuracy=0.75,
    images_per_second=10.0,
    seconds=2.0,
)
RECIPE = {
    "net": "Net",
    "data": "toy",
    "shape": [1, 4, 4],
    "train_images": 6,
    "precision": "fp32",
    "device": "cpu",
    "epochs": 2,
    "batches": 3,
    "lr": 0.5,
}


class Screen(list):
    """Records what is displayed, and what is then shown in its place."""

    def __init__(self):
        super().__init__()
        self.updates = []

    def display(self, bundle, raw=False, display_id=False):
        assert raw and display_id
        place = len(self)
        self.append(bundle)
        return SimpleNamespace(update=lambda other, raw: self.update(place, other))

    def update(self, place, bundle):
        self.updates.append(self[place])
        self[place] = bundle


@pytest.fixture
def screen(monkeypatch):
    screen = Screen()
    monkeypatch.setattr("IPython.display.display", screen.display)
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    return screen


def train(live, monkeypatch, plot=True, interrupted=False, epochs=1, banner=""):
    """Tell a display of `epochs` epochs, and of one more batch where the run is interrupted."""
    monkeypatch.setenv("CNNLIB_LIVE", "1" if live else "0")
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_UPDATES", 0)
    history = History(RECIPE, banner)
    display = show_progress(history, plot)
    for epoch in range(1, epochs + 1):
        for loss in (2.0, 1.5, 1.0):
            history.losses.append(loss)
            display.after_batch()
        history.rows.append(ROW)
        assert epoch == len(history.rows)
        display.after_epoch()
    if interrupted:
        history.losses.append(0.5)
        display.after_batch()
        history.interrupted = True
    display.close()
    return display


def alt(bundle):
    """Return the text alternative that stands in the HTML, beside the picture itself."""
    (tag,) = re.findall(r"<img [^>]*>", bundle["text/html"])
    found = re.fullmatch(r'<img alt="([^"]+)" src="data:image/png;base64,([^"]+)">', tag)
    assert base64.b64decode(found[2]).startswith(b"\x89PNG")
    return html.unescape(found[1])


@pytest.mark.parametrize("live", [True, False])
def test_one_output_stays_with_table_and_picture(screen, monkeypatch, live):
    train(live, monkeypatch, banner="NOT REAL <&>\nnot at all")
    (bundle,) = screen
    assert len(screen.updates) == (4 if live else 0)
    assert set(bundle) == {"text/html", "image/png", "text/plain"}
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    shown = bundle["text/html"]
    title = "Net on 6 images 1x4x4 of toy, fp32 on cpu"
    assert f"NOT REAL &lt;&amp;&gt;<br>not at all<br>{title}" in shown
    assert shown.count("<th>epoch</th>") == 1
    assert shown.count("<tr>") == 2
    assert "<td>1</td><td>1.0000</td><td>0.5000</td><td>0.9000</td><td>0.7500</td>" in shown
    assert "<em>Test accuracy 0.750 after epoch 1.</em>" in shown
    assert "<progress" not in shown
    assert alt(bundle) == "Training loss of each batch. Test accuracy 0.750 after epoch 1."
    banner, _, _, header, row, conclusion = bundle["text/plain"].splitlines()
    assert (banner, header) == ("NOT REAL <&>", HEADER)
    assert row == "    1      1.0000     0.5000     0.9000    0.7500        10      2.0"
    assert conclusion == "Test accuracy 0.750 after epoch 1."


def test_bar_table_and_curve_move_while_it_runs(screen, monkeypatch):
    train(True, monkeypatch, epochs=2)
    shown = [bundle["text/html"] for bundle in screen.updates]
    bars = [re.search(r'<progress value="(\d)" max="6"></progress>', text)[1] for text in shown]
    assert bars == list("0123456")
    assert all(f" batch {done} of 6</label>" in text for done, text in enumerate(shown))
    assert [text.count("<tr>") for text in shown] == [1, 1, 1, 1, 2, 2, 2]
    assert "<img" not in shown[0]
    assert all(alt(bundle).startswith("Training loss of each b") for bundle in screen.updates[1:])
    assert len({*shown}) == 7


def test_it_is_not_drawn_for_every_batch(screen, monkeypatch):
    """A picture takes longer than a step: drawn at once, it would spoil the first epoch's speed."""
    monkeypatch.setenv("CNNLIB_LIVE", "1")
    history = History(RECIPE)
    display = show_progress(history, plot=True)
    history.losses.append(1.0)
    for _ in range(6):
        display.after_batch()
    (bundle,) = screen
    assert screen.updates == []
    assert "<progress" in bundle["text/html"]
    assert "<img" not in bundle["text/html"]


def test_the_picture_of_several_epochs_is_over_the_epochs(screen, monkeypatch):
    train(False, monkeypatch, epochs=2)
    assert alt(screen[0]) == "Loss and Accuracy. Test accuracy 0.750 after epoch 2."


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_run_that_was_stopped_says_how_far_it_came(screen, monkeypatch, epochs):
    train(False, monkeypatch, interrupted=True, epochs=epochs)
    said = f"Stopped: {epochs} of 2 epochs were completed."
    (bundle,) = screen
    assert said in bundle["text/html"]
    assert said in bundle["text/plain"]
    assert alt(bundle).startswith(f"Training loss of each batch. {said}")


def conclude(capsys, losses, *rows):
    """Return what a training shows at its end below its rows, from its losses and epochs."""
    history = History(RECIPE, losses=losses)
    display = show_progress(history, plot=False)
    for loss, test_loss in rows:
        history.rows.append(replace(ROW, train_loss=loss, test_loss=test_loss))
        display.after_epoch()
    display.close()
    return "\n".join(capsys.readouterr().out.splitlines()[len(rows) :])


def test_a_loss_that_explodes_but_stays_finite_is_told_once_at_the_end(screen, capsys):
    told = "The training loss exploded to 4.2e+09: try a smaller learning rate, such as lr=0.05."
    accuracy = "Test accuracy 0.750 after epoch 2."
    assert conclude(capsys, [2.3, 7e9], (1e9, 3.0), (4.2e9, 3.0)) == f"{accuracy} {told}"
    history = History(RECIPE, "", [replace(ROW, train_loss=4.2e9)], [2.3, 7e9])
    show_progress(history, plot=True).close()
    assert told in screen[0]["text/html"] and told in screen[0]["text/plain"]


@pytest.mark.parametrize(
    ("losses", "rows"),
    [
        ([2.3], [(1.9, 50_000.0), (0.9, 2.0)]),  # an early test of batch normalisation
        ([7e9], [(1e9, 1e9), (5e8, 1e9)]),  # weights that begin too large
        ([2.3, 7e9], [(1e9, 1e9), (2.2, 2.2)]),  # a rough start that comes to rest
        ([1e-5], [(0.5, 0.6)]),  # a trained network that learns something else
        ([2.3], [(math.nan, math.nan)]),
        ([2.3], []),
    ],
)
def test_no_other_loss_is_called_exploded(screen, capsys, losses, rows):
    assert conclude(capsys, losses, *rows) == ""


def test_short_runs_in_a_notebook_are_lines(screen, monkeypatch, capsys):
    train(True, monkeypatch, plot=False, epochs=2, banner="NOT REAL")
    assert screen == []
    banner, *lines = capsys.readouterr().out.splitlines()
    assert banner == "NOT REAL"
    assert len(lines) == 2
    assert lines[0].startswith("epoch 1, train loss 1.0000, train acc 0.5000, test loss 0.9000, ")
    train(True, monkeypatch, plot=False, interrupted=True)
    assert capsys.readouterr().out.endswith(
        "Stopped: 1 of 2 epochs were completed. Test accuracy 0.750 after epoch 1.\n"
    )


@pytest.mark.parametrize("plot", [True, False])
def test_a_terminal_has_a_bar_that_goes_and_a_table_that_stays(monkeypatch, capsys, plot):
    display = train(True, monkeypatch, plot=plot, interrupted=True)
    assert (display.bar.n, display.bar.total) == (4, 6)
    assert display.bar.disable  # it is closed
    out, err = capsys.readouterr()
    _, header, row, stopped = out.splitlines()
    assert header == HEADER
    assert len(row) == len(header)
    assert stopped.startswith("Stopped: 1 of 2 epochs were completed.")
    assert "| 3/6 [" in err and "loss=1.000]" in err  # as the row is written above the bar
    assert err.endswith("\r")
    display = train(False, monkeypatch, plot=plot)
    assert display.bar.n == 0
    assert capsys.readouterr().err == ""


def test_what_was_completed_before_is_there_at_once(screen, monkeypatch, capsys):
    monkeypatch.setenv("CNNLIB_LIVE", "1")
    history = History(RECIPE, rows=[ROW], losses=[2.0, 1.5, 1.0])
    show_progress(history, plot=True)
    (bundle,) = screen
    assert '<progress value="3" max="6">' in bundle["text/html"]
    assert "<td>1</td><td>1.0000</td>" in bundle["text/html"]
    show_progress(history, plot=False)
    assert capsys.readouterr().out.startswith("epoch 1, train loss 1.0000, ")
    monkeypatch.setattr(progress, "in_notebook", lambda: False)
    display = show_progress(history, plot=True)
    assert (display.bar.n, display.bar.total) == (3, 6)
    display.close()
    assert capsys.readouterr().out.splitlines()[-2:] == [
        progress.row_text(ROW),
        "continuing after epoch 1",
    ]


def test_a_terminal_is_no_notebook():
    assert not in_notebook()


def test_a_silent_one_shows_nothing(screen, capsys, monkeypatch):
    history = History(RECIPE, "a banner", [ROW], [1.0], interrupted=True)
    silent = show_progress(history, plot=True, silent=True)
    silent.after_batch()
    silent.after_epoch()
    silent.close()
    assert screen == []
    assert capsys.readouterr() == ("", "")


def test_a_saved_notebook_keeps_one_output_of_a_training(tmp_path, monkeypatch):
    """In a real kernel, moving: no widget, no dead bar, nothing on stdout or stderr."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("CNNLIB_LIVE", "1")
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from test_train import ToyData, small_convnet\n"
        "from cnnlib import progress\n"
        "from cnnlib.train import fit\n"
        "progress.SECONDS_BETWEEN_UPDATES = 0\n"
        "history = fit(small_convnet(), ToyData(), 2, 0.1)"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    (output,) = notebook.cells[0].outputs
    assert output.output_type == "display_data"
    assert set(output.data) == {"text/html", "image/png", "text/plain"}
    assert "<progress" not in output.data["text/html"]
    assert output.data["text/html"].count("<tr>") == 3
    assert alt(output.data).startswith("Loss and Accuracy. Test accuracy ")
    assert json.loads(json.dumps(output.data["image/png"])).strip().startswith("iVBOR")
