"""Kills at twenty random moments of a record, and of the kernel of a notebook that trains."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from jupyter_client.manager import KernelManager
from test_checkpoint import EPOCHS, FORKS, epochs_in, forked
from test_checkpoint import run as train_with
from test_experiments import TRAINING, read, write_notebook

from cnnlib.measure import recording, records
from cnnlib.measure.recording import complete, find

pytestmark = pytest.mark.slow

KILLS = 20


def without_time(record):
    """Return a record without what no two runs share: the seconds that they took."""
    for runs in record["runs"].values():
        for run in runs:
            del run["seconds"]
    return record


@pytest.mark.skipif(not FORKS, reason="the processes are forked")
def test_a_record_killed_twenty_times_equals_that_of_a_run_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CNNLIB_PRECISION", "fp32")
    monkeypatch.setattr(recording, "fetch", lambda: "raw")
    monkeypatch.setattr(records, "_commit", lambda: None)  # which may change meanwhile
    notebook = TRAINING.replace("epochs=10", "epochs=200")
    assert notebook != TRAINING
    write_notebook(tmp_path / "notebooks" / "01.ipynb", notebook)
    start = time.perf_counter()
    complete(find(), "study", "alone")
    seconds = time.perf_counter() - start
    dice, saved = random.Random(0), set()
    for _ in range(KILLS):
        process = forked(lambda: complete(find(), "study", "killed"))
        time.sleep(dice.uniform(0, seconds / 25))  # together two fifths of the record
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        saved.update((file.name, epochs_in(file)) for file in Path("killed").rglob("*.pt"))
    assert len(saved) > KILLS / 3  # many a kill came after another epoch
    print(f"{KILLS} kills, with these epochs saved: {sorted(epochs for _, epochs in saved)}")
    complete(find(), "study", "killed")
    assert without_time(read("alone", "widths_study")) == without_time(
        read("killed", "widths_study")
    )
    assert [path.suffix for path in Path("killed", "unfinished").iterdir()] == [".lock"]


CELL = """
import json, sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {root!r}]
from test_checkpoint import run
net, history, numbers = run("net.pt", epochs={epochs})
Path("history.json").write_text(json.dumps([history.losses, numbers.tolist(), len(history.rows)]))
"""


def test_a_kernel_killed_in_training_goes_on_from_its_checkpoint(tmp_path):
    """Twice: the cell is run again after each restart, and the History is that of one run."""
    epochs, done = 25 * EPOCHS, 0
    tests = Path(__file__).parent
    cell = CELL.format(tests=str(tests), root=str(tests.parent), epochs=epochs)
    kernel = KernelManager(kernel_name="python3")
    kernel.start_kernel(cwd=str(tmp_path))
    try:
        for _ in range(2):
            client = kernel.blocking_client()
            client.start_channels()
            client.wait_for_ready(timeout=60)
            client.execute(cell)
            while epochs_in(tmp_path / "net.pt") < done + 3:
                assert kernel.is_alive()
                time.sleep(0.01)
            os.kill(kernel.provisioner.pid, signal.SIGKILL)
            client.stop_channels()
            done = epochs_in(tmp_path / "net.pt")
            assert done < epochs
            kernel.restart_kernel(now=True)
        client = kernel.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        reply = client.execute(cell, reply=True, timeout=120)
        assert reply["content"]["status"] == "ok", reply["content"]
        client.stop_channels()
    finally:
        kernel.shutdown_kernel(now=True)
    _, history, numbers = train_with(epochs=epochs)
    found = json.loads((tmp_path / "history.json").read_text())
    assert found == [history.losses, numbers.tolist(), epochs]
    assert not (tmp_path / "net.pt.part").exists()
