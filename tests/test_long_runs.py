"""Long trainings keep to their memory, their threads and their files."""

import os
import threading
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from test_main import drawn
from torch import nn

from cnnlib.train import fit

PROC = Path("/proc/self")
MEGABYTE = 2**20


def resident():
    """Return the memory that this process holds, in bytes."""
    return int((PROC / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def held():
    """Return the number of threads and of open files."""
    return threading.active_count(), len(os.listdir(PROC / "fd"))


def train(epochs, checkpoint=None):
    """Train a tiny network and return its History."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 5, stride=5), nn.Flatten(), nn.Linear(50, 10))
    return fit(net, drawn(train=32, test=16), epochs, 0.01, checkpoint=checkpoint, plot=False)


@pytest.mark.skipif(not PROC.exists(), reason="needs /proc, as on Linux")
def test_200_epochs_with_a_checkpoint_stay_flat(tmp_path):
    train(20, tmp_path / "first.pt")  # libraries allocate what they keep
    memory, others = resident(), held()
    train(200, tmp_path / "second.pt")
    assert resident() - memory < 16 * MEGABYTE
    assert held() == others
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.pt", "second.pt"]


@pytest.mark.skipif(not PROC.exists(), reason="needs /proc, as on Linux")
def test_ten_trainings_with_their_pictures_leave_nothing():
    train(2).plot()
    memory, others = resident(), held()
    for _ in range(10):
        train(2).plot()
    assert resident() - memory < 16 * MEGABYTE
    assert held() == others
    assert not plt.get_fignums()
