"""Make the index of the notebooks, notebooks/00_index.ipynb: python tools/make_index.py

The lectures and a line about each come from docs/index.md; titles, minutes and pictures from the
notebooks. The pictures are made smaller, and the index holds them itself.
"""

import base64
import html
import io
import re
from pathlib import Path

import nbformat
from PIL import Image

ROOT = Path(__file__).parent.parent
NOTEBOOKS = ROOT / "notebooks"
CARD = re.compile(r"grid-item-card\} (.+)\n:link: notebooks/(.+)\n(?::.+\n)*(.+)\n")
WIDTH = 360  # pixels

TITLE = """\
# Convolutional networks: the lectures

Each lecture names in its first lines the ones that it needs. Begin with the first.

Work on copies: `uv run python tools/copy_notebooks.py` makes them. Run `check.keep()` in one of
them, and what you predict and answer is kept from then on. `check.progress()` then shows what is
done in all notebooks. Both need `from cnnlib import check`.\
"""


def first_picture(path):
    """Return the first picture of a notebook, as PNG, and its text in words."""
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                words = re.search('<img alt="([^"]*)"', data.get("text/html", ""))
                return base64.b64decode(data["image/png"]), html.unescape(words[1])
    raise ValueError(f"{path} has no picture")


def small(picture):
    """Return a PNG as one of at most WIDTH pixels and 256 colours, in base64."""
    image, stream = Image.open(io.BytesIO(picture)).convert("RGB"), io.BytesIO()
    image.thumbnail((WIDTH, WIDTH))
    image.quantize().save(stream, "png", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def about(path):
    """Return the title of a notebook, and how many minutes it takes."""
    first = nbformat.read(path, as_version=4).cells[0].source
    return first.splitlines()[0].lstrip("# "), re.search(r"(\d+) minutes", first)[1]


def lecture_cell(name, line):
    """Return the cell of one lecture."""
    path = NOTEBOOKS / f"{name}.ipynb"
    title, minutes = about(path)
    picture, words = first_picture(path)
    text = f"## [{title}]({path.name})\n\n{line}. ({minutes} minutes)"
    text += f"\n\n[![{words}](attachment:{name}.png)]({path.name})"
    deeper = sorted((NOTEBOOKS / "deeper").glob(f"{name[:2]}_*.ipynb"))
    links = [
        f"[{about(each)[0]}](deeper/{each.name}) ({about(each)[1]} minutes)" for each in deeper
    ]
    cell = nbformat.v4.new_markdown_cell(f"{text}\n\nDeeper: {'; '.join(links)}", id=name)
    cell.attachments = {f"{name}.png": {"image/png": small(picture)}}
    return cell


def index():
    """Return the index as a notebook."""
    cards = CARD.findall((ROOT / "docs" / "index.md").read_text(encoding="utf-8"))
    cells = [nbformat.v4.new_markdown_cell(TITLE, id="title")]
    cells += [lecture_cell(name, line) for _, name, line in cards]
    lecture = nbformat.read(NOTEBOOKS / f"{cards[0][1]}.ipynb", as_version=4)
    return nbformat.v4.new_notebook(cells=cells, metadata=lecture.metadata)


if __name__ == "__main__":
    nbformat.write(index(), NOTEBOOKS / "00_index.ipynb")
