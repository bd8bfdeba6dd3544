"""Notebooks in JupyterLab, from opening to reopening: 01, 03 and 05, or with CNNLIB_BROWSER=all each."""

import os
import platform
import re

import nbformat
import pytest
from playwright.sync_api import expect

import notebooks

pytestmark = pytest.mark.browser

SOME = [path for path in notebooks.PATHS if path.stem[:2] in ("01", "03", "05")]
SOME = [path for path in SOME if path.parent.name == "notebooks"]
CHOSEN = notebooks.PATHS if os.environ.get("CNNLIB_BROWSER") == "all" else SOME


@pytest.fixture(scope="module", params=CHOSEN, ids=lambda path: path.stem)
def path(request):
    """Where the notebook lies in the course."""
    return request.param.relative_to(notebooks.ROOT)


@pytest.fixture(scope="module")
def opened(lab, course, path):
    """The notebook as it opens, with this Python in its metadata, as JupyterLab would write it."""
    notebook = nbformat.read(course / path, as_version=4)
    notebook.metadata["language_info"]["version"] = platform.python_version()
    nbformat.write(notebook, course / path)
    lab.console.clear()  # what the one before said
    lab.open(path)
    return lab


@pytest.fixture(scope="module")
def executed(opened):
    """The notebook after Run All."""
    opened.run_all()
    opened.wait()
    return opened


def test_opening_leaves_nothing_unsaved(opened):
    assert not opened.is_unsaved()


def test_the_table_of_contents_names_every_room(opened, path):
    cells = notebooks.read(notebooks.ROOT / path)
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    without_code = re.sub("^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall("^#+ (.*)", without_code, flags=re.MULTILINE)
    assert opened.contents() == [re.sub("[`*$]", "", heading) for heading in headings]


def test_run_all_ends_without_an_error(executed):
    assert executed.failures() == []


def test_every_picture_has_its_text(executed, path):
    cells = notebooks.code_cells(notebooks.ROOT / path)
    outputs = [output.get("data", {}) for cell in cells for output in cell.outputs]
    texts = executed.texts_of_pictures()
    assert len(texts) == len([data for data in outputs if "image/png" in data])
    assert all(text and len(text.split()) > 2 for text in texts)


@pytest.mark.parametrize("width", [1280, 768])
@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_outputs_are_whole_and_legible(executed, theme, width):
    executed.choose_theme(theme)
    executed.resize(width)
    assert executed.cut_off() == []
    assert executed.faint() == []


def test_reopened_it_shows_the_same(executed, path):
    before = executed.texts_of_pictures()
    executed.reopen(path)
    expect(executed.pictures).to_have_count(len(before))  # they are drawn one after the other
    assert executed.texts_of_pictures() == before
    assert executed.failures() == []


def test_the_console_is_silent(executed):
    assert executed.console == []
