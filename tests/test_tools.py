"""The scripts of tools: copies for learners, the index, slides."""

import re

import nbformat
import pytest

import notebooks
from tools import copy_notebooks, make_index

LECTURES = sorted(path for path in notebooks.PATHS if path.parent.name == "notebooks")


def test_copies_are_added_and_never_overwritten(tmp_path):
    copied, kept = copy_notebooks.copy(tmp_path)
    assert {path.name for path in notebooks.PATHS} < {path.name for path in copied}
    assert kept == []
    mine, lost = tmp_path / LECTURES[0].name, tmp_path / "deeper" / "05_zoo.ipynb"
    mine.write_text("what I wrote", encoding="utf-8")
    lost.unlink()
    again, kept = copy_notebooks.copy(tmp_path)
    assert again == [lost]
    assert len(kept) == len(copied) - 1
    assert mine.read_text(encoding="utf-8") == "what I wrote"
    assert lost.read_bytes() == (notebooks.ROOT / "notebooks/deeper/05_zoo.ipynb").read_bytes()


def test_git_ignores_what_is_the_learners():
    ignored = (notebooks.ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {"/my_notebooks/", "my_progress.json", "/slides/"} <= set(ignored)


def test_the_index_names_every_notebook_with_its_minutes():
    made = make_index.index()
    committed = nbformat.read(notebooks.ROOT / "notebooks" / "00_index.ipynb", as_version=4)
    words = [
        [re.sub(r"!\[.*?\]", "", cell.source) for cell in each.cells] for each in (committed, made)
    ]
    assert words[0] == words[1]  # else run tools/make_index.py
    links = re.findall(r"\]\(([\w/]+\.ipynb)\)", "\n".join(words[0]))
    assert {notebooks.ROOT / "notebooks" / link for link in links} == set(notebooks.PATHS)
    pictures = [cell.attachments for cell in committed.cells if "attachments" in cell]
    assert [list(each) for each in pictures] == [[f"{path.stem}.png"] for path in LECTURES]


@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.stem)
def test_slides_show_the_core_path_and_load_nothing(path):
    pytest.importorskip("sphinx_revealjs", reason="slides need the group docs")
    from tools import make_slides

    cells = list(make_slides.core_path(notebooks.read(path)))
    text = "\n".join(cell.source for cell in cells)
    assert "## Summary" in text
    assert "Solution</summary>" not in text
    assert "check." not in "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    assert not any("exercise" in notebooks.tags(cell) for cell in cells)
    deck = re.sub(r"(?s)<script>.*?</script>", "", make_slides.make(path))
    assert not re.search(r"""<(script|link|img|iframe)[^>]+(src|href)=["'](?!data:)""", deck)
    assert not re.search(r"@import|url\((?!['\"]?data:)", deck)
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert ("<math" in deck) == ("$" in prose)
    folded = [cell for cell in notebooks.code_cells(path) if "jupyter" in cell.metadata]
    assert any(cell.outputs for cell in folded)
    for cell in folded:
        assert cell.source.splitlines()[0][:30] not in deck


def test_a_cell_whose_slide_type_is_skip_is_on_no_slide():
    pytest.importorskip("sphinx_revealjs", reason="slides need the group docs")
    from tools import make_slides

    kept = nbformat.v4.new_markdown_cell("## Kept\n\n### Too")
    left_out = nbformat.v4.new_markdown_cell(
        "## Left out", metadata={"slideshow": {"slide_type": "skip"}}
    )
    cells = make_slides.core_path([kept, left_out])
    assert [cell.source.strip() for cell in cells] == ["## Kept", "### Too"]


@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.stem)
def test_a_heading_on_the_core_path_begins_a_slide(path):
    for cell in notebooks.read(path):
        heading = cell.cell_type == "markdown" and cell.source.startswith("#")
        kind = cell.metadata.get("slideshow", {}).get("slide_type")
        assert kind in ("skip", "slide" if heading else None)
