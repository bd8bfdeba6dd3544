"""What a notebook shows while a network trains. The display is replaced by a list."""

from types import SimpleNamespace

import pytest
import torch

from cnnlib import progress
from cnnlib.backend import engine
from cnnlib.progress import Live, in_notebook
from cnnlib.train import History, Tally

ROW = {
    "epoch": 1,
    "lr": 0.1,
    "train_loss": 1.0,
    "train_accuracy": 0.5,
    "test_loss": 0.9,
    "test_accuracy": 0.75,
    "images_per_second": 10.0,
    "seconds": 2.0,
}


class Screen(list):
    """Records what is displayed and what is updated in its place."""

    def display(self, thing, display_id=False):
        place = len(self)
        self.append(thing)
        return SimpleNamespace(update=lambda other: self.__setitem__(place, other))


@pytest.fixture
def screen(monkeypatch):
    screen = Screen()
    monkeypatch.setattr("IPython.display.display", screen.display)
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    return screen


def train(moving, monkeypatch, plot=True, interrupted=False, epochs=1):
    monkeypatch.setenv("CNNLIB_LIVE", "1" if moving else "0")
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LOOKS", 0)
    recipe = {"net": "Net", "data": "toy", "epochs": 2}
    history = History(recipe, interrupted=interrupted)
    show = Live(history, batches=3, plot=plot)
    tally = SimpleNamespace(read=lambda: [2.0, 1.5])
    for _ in range(3):
        show.after_batch(tally)
    for _ in range(epochs):
        history.rows.append(ROW)
        history.losses += [2.0, 1.5, 1.0]
        show.after_epoch()
    show.close()
    return show


@pytest.mark.parametrize("moving", [True, False])
def test_one_picture_and_its_caption_stay(screen, monkeypatch, moving):
    train(moving, monkeypatch)
    image, caption = screen
    assert image.data.startswith(b"\x89PNG")
    assert image.alt.startswith("The loss of each batch")
    assert "0.750 after epoch 1" in image.alt
    assert caption.data == "*Net on toy: test accuracy 0.750 after epoch 1.*"


def test_the_picture_of_several_epochs_is_over_the_epochs(screen, monkeypatch):
    train(False, monkeypatch, epochs=2)
    assert screen[0].alt.startswith("Loss and accuracy over the epochs")


def test_nothing_is_drawn_unless_asked_for(screen, monkeypatch):
    train(True, monkeypatch, plot=False)
    assert screen == []


def test_a_run_without_an_epoch_leaves_no_caption(screen, monkeypatch, capsys):
    train(False, monkeypatch, interrupted=True, epochs=0)
    assert screen == []
    assert "Stopped: 0 of 2 epochs were completed." in capsys.readouterr().out


def test_the_bar_moves_with_the_batches_and_goes(screen, monkeypatch):
    show = train(True, monkeypatch)
    assert show.bar.n == 3
    assert show.bar.total == 6
    assert show.bar.disable
    assert train(False, monkeypatch).bar.n == 0


def test_a_terminal_is_no_notebook():
    assert not in_notebook()


def test_reading_a_tally_gives_its_losses():
    tally = Tally(1, engine("cpu", "fp32"))
    tally.add(torch.tensor(2.0), torch.tensor(2), torch.tensor([0, 1, 1]), lr=0.1)
    assert tally.read() == [2.0]
    assert tally.correct == 2


def test_a_silent_one_shows_nothing_and_never_looks(capsys, monkeypatch):
    """Of several processes one looks: another would see a divergence first, and tell nobody."""
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LOOKS", 0)
    history = History({"epochs": 1}, "a banner", [{}], interrupted=True)
    silent = Live(history, 3, plot=True, silent=True)
    silent.after_batch(tally=None)
    silent.after_epoch()
    silent.close()
    assert capsys.readouterr() == ("", "")
