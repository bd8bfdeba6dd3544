"""The grammar of a notebook: what each one must have, and what none may have."""

import re
from statistics import median

import pytest

import notebooks

IGNORED = {"nbval-ignore-output", "nbval-skip"}
MACHINE_PATH = re.compile(r"/(?:root|home|Users|tmp|work|usr|opt|var)/|[A-Z]:\\\\")
ROOMS = ["Predict", "Mistakes", "Exercises", "Summary", "Sources"]

pytestmark = pytest.mark.parametrize("path", notebooks.PATHS, ids=lambda path: path.stem)


def test_cell_lengths(path):
    lengths = [len(cell.source.splitlines()) for cell in notebooks.code_cells(path)]
    assert max(lengths) <= 25
    assert median(lengths) <= 6


def test_first_architecture_comes_early(path):
    sources = [cell.source for cell in notebooks.code_cells(path)[:5]]
    assert any(re.search(r"nn\.|models|blocks|trace\(|def |class ", source) for source in sources)


def test_prose_between_code(path):
    kinds = "".join(cell.cell_type[0] for cell in notebooks.read(path))
    assert "ccc" not in kinds


def test_has_every_room(path):
    headings = [
        line
        for cell in notebooks.read(path)
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("#")
    ]
    missing = [room for room in ROOMS if not any(room in heading for heading in headings)]
    assert not missing
    assert "minutes" in notebooks.read(path)[0].source


def test_was_run_from_top_to_bottom(path):
    counts = [cell.execution_count for cell in notebooks.code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))


def test_outputs_are_clean(path):
    for cell in notebooks.code_cells(path):
        for output in cell.outputs:
            assert output.output_type != "error" or "raises-exception" in notebooks.tags(cell)
            assert output.get("name") != "stderr"
            text = "".join(str(value) for key, value in texts(output))
            assert not MACHINE_PATH.search(text), text
            assert "image/svg+xml" not in output.get("data", {})


def texts(output):
    """Return what an output says in words, pictures left out."""
    items = output.get("data", output).items()
    return [(key, value) for key, value in items if key != "image/png"]


def test_figures_have_alt_text_and_a_caption(path):
    for cell in notebooks.code_cells(path):
        for i, output in enumerate(cell.outputs):
            if "image/png" not in output.get("data", {}):
                continue
            metadata = output.metadata.get("image/png", output.metadata)
            assert metadata.get("alt", "").strip(), f"no alt text:\n{cell.source}"
            later = [o.data.get("text/markdown", "") for o in cell.outputs[i + 1 :] if "data" in o]
            assert any(re.fullmatch(r"\*[^*].+\*", text, re.S) for text in later), cell.source


def test_nearly_all_outputs_are_compared(path):
    cells = notebooks.code_cells(path)
    ignored = [cell for cell in cells if IGNORED & notebooks.tags(cell)]
    assert len(ignored) <= len(cells) / 4
    known = IGNORED | {"exercise", "raises-exception"}
    assert not set().union(*map(notebooks.tags, cells)) - known


def test_ignored_cells_are_followed_by_an_assertion(path):
    cells = notebooks.code_cells(path)
    for cell, following in zip(cells, [*cells[1:], None], strict=True):
        if IGNORED & notebooks.tags(cell):
            assert following is not None
            assert re.search(r"\bassert\b|\bcheck\.", following.source), cell.source


def test_committed_without_traces_of_the_machine(path):
    for cell in notebooks.code_cells(path):
        assert "execution" not in cell.metadata
    assert "widgets" not in notebooks.nbformat.read(path, as_version=4).metadata
    assert path.stat().st_size < 2e6
