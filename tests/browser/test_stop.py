"""Stop, pressed in the middle of the training of a lecture."""

import re

import pytest
from test_notebooks import CHOSEN

import notebooks

pytestmark = pytest.mark.browser


def trains(path):
    """Return whether a notebook trains a network before the learner's eyes."""
    cells = notebooks.code_cells(path)
    return any(re.search("^history = fit", cell.source, re.MULTILINE) for cell in cells)


@pytest.mark.parametrize(
    "path", [path for path in CHOSEN if trains(path)], ids=lambda path: path.stem
)
def test_after_stop_the_rest_of_a_notebook_runs(lab, path):
    lab.open(path.relative_to(notebooks.ROOT))
    lab.restart_and_run_all()
    lab.page.locator("progress").first.wait_for()
    lab.stop()
    lab.wait()
    assert lab.failures() == []
    stopped = lab.outputs.get_by_text(re.compile("^Stopped: [0-9] of [0-9] epochs"))
    assert stopped.count() == 1
