"""The grammar of a notebook: what each one must have, and what none may have."""

import ast
import re
from collections import Counter
from statistics import median

import pytest

import notebooks
from tools import refresh_notebooks

IGNORED = {"nbval-ignore-output", "nbval-skip"}
ROOMS = ["Predict", "Mistakes", "Exercises", "Summary", "Sources"]  # of a lecture
DEEPER_ROOMS = ["Exercises", "Sources"]

pytestmark = pytest.mark.parametrize("path", notebooks.PATHS, ids=lambda path: path.stem)


def test_is_one_lecture(path):
    cells = notebooks.read(path)
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert len(cells) <= 100
    assert len(notebooks.code_cells(path)) <= 50
    assert len(text.split()) <= 2800
    assert int(re.search(r"(\d+) minutes", cells[0].source)[1]) <= 90


def test_minutes_are_counted(path):
    """150 words or one cell a minute, two a prediction, and the exercises that are no homework."""
    cells = notebooks.read(path)
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    code = [cell for cell in notebooks.code_cells(path) if "exercise" not in notebooks.tags(cell)]
    predictions = len(re.findall("^#+ Predict", text, flags=re.MULTILINE))
    exercises = [int(each) for each in re.findall(r"ifficulty \d, (\d+) minutes", text)]
    home = re.search(r"exercises? (\d).{0,9} \((\d+) minutes\) (is|are) homework", cells[0].source)
    if home:
        first = int(home[1]) - 1
        assert sum(exercises[first:]) == int(home[2])
        exercises = exercises[:first]
    counted = len(text.split()) / 150 + len(code) + 2 * predictions + sum(exercises)
    assert abs(counted - int(re.search(r"(\d+) minutes", cells[0].source)[1])) <= 2.5


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
    rooms = DEEPER_ROOMS if path.parent.name == "deeper" else ROOMS
    missing = [room for room in rooms if not any(room in heading for heading in headings)]
    assert not missing
    assert not any("$" in heading for heading in headings)  # a table of contents shows no formula
    assert "minutes" in notebooks.read(path)[0].source


def test_links_lead_to_the_next_lecture_and_to_what_goes_deeper(path):
    links = re.findall(r"\]\(([^)#]+\.ipynb)\)", path.read_text(encoding="utf-8"))
    found = {(path.parent / link).resolve() for link in links}
    assert all(target.exists() for target in found)
    same = {other for other in notebooks.PATHS if other.name[:2] == path.name[:2]}
    deeper = {other for other in same if other.parent.name == "deeper"}
    if path in deeper:
        assert same - deeper <= found
    else:
        number = int(path.name[:2]) + 1
        following = set(path.parent.glob(f"{number:02}_*.ipynb"))
        assert deeper | following <= found


def test_no_name_is_bound_in_two_cells(path):
    """Else a cell that is run again after the whole notebook may see another thing."""
    names = Counter()
    for cell in notebooks.code_cells(path):
        tree = ast.parse(re.sub(r"^[%!].*$", "", cell.source, flags=re.MULTILINE))
        bound = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        for statement in tree.body:
            match statement:
                case ast.Assign(targets=targets):
                    stored = [n for target in targets for n in ast.walk(target)]
                    bound |= {
                        n.id
                        for n in stored
                        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
                    }
        names.update(bound - {"_"})
    assert [name for name, count in names.items() if count > 1] == []


def test_was_run_from_top_to_bottom(path):
    counts = [cell.execution_count for cell in notebooks.code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))


def test_outputs_have_no_faults(path):
    notebook = notebooks.nbformat.read(path, as_version=4)
    assert refresh_notebooks.faults(notebook) == []
    outputs = [output for cell in notebooks.code_cells(path) for output in cell.outputs]
    assert not [o for o in outputs if "image/svg+xml" in o.get("data", {})]  # random ids, dates


def test_committed_as_refresh_notebooks_leaves_it(path):
    notebook = notebooks.nbformat.read(path, as_version=4)
    refresh_notebooks.strip(notebook)
    assert notebooks.nbformat.writes(notebook) + "\n" == path.read_text(encoding="utf-8")
    assert path.stat().st_size < 2e6


def test_figures_have_alt_text_and_a_caption(path):
    for cell in notebooks.code_cells(path):
        for i, output in enumerate(cell.outputs):
            if "image/png" not in output.get("data", {}):
                continue
            alt = re.search('<img alt="([^"]*)"', output.data.get("text/html", ""))
            assert alt and alt[1].strip(), f"no alt text:\n{cell.source}"
            later = [o.data.get("text/markdown", "") for o in cell.outputs[i + 1 :] if "data" in o]
            inside = re.search("<em>[^<]+</em>", output.data["text/html"])  # of a training
            below = any(re.fullmatch(r"\*[^*].+\*", text, re.S) for text in later)
            assert inside or below, cell.source


def test_nearly_all_outputs_are_compared(path):
    cells = notebooks.code_cells(path)
    ignored = [cell for cell in cells if IGNORED & notebooks.tags(cell)]
    assert len(ignored) <= len(cells) / 4
    known = IGNORED | {"exercise", "experiment", "raises-exception"}
    assert not set().union(*map(notebooks.tags, cells)) - known


def test_ignored_cells_are_followed_by_an_assertion(path):
    cells = notebooks.code_cells(path)
    for cell, following in zip(cells, [*cells[1:], None], strict=True):
        if IGNORED & notebooks.tags(cell):
            assert following is not None
            assert re.search(r"\bassert\b|\bcheck\.", following.source), cell.source
