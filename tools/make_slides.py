"""Make slides of notebooks, or pages to read, one file per notebook, which needs no network.

uv run --group docs python tools/make_slides.py                            the lectures
uv run --group docs python tools/make_slides.py notebooks/05_resnet.ipynb
uv run --group docs python tools/make_slides.py --pages                    everything in them

The slides show the core path: every cell whose Slide Type is not Skip. (JupyterLab's Property
Inspector sets it.) Exercises, sources, cells that only import or prepare, and the checks of
predictions are skipped, so the slides answer no question. A folded cell shows its output alone.
"""

import argparse
import importlib.util
import re
import sys
from pathlib import Path

import latex2mathml.converter
import nbformat
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter

ROOT = Path(__file__).parent.parent
HERE = Path(__file__).parent / "slides"
HEADING = re.compile(r"^(?=#{1,3} )", flags=re.MULTILINE)
CODE_STYLE = "a11y-high-contrast-light"
# A page is what nbconvert makes, without the scripts that it would fetch.
FETCHED = ("html_head_js", "html_head_js_mathjax", "html_head_js_mermaidjs")
PAGE = "{% extends 'lab/index.html.j2' %}" + "".join(
    f"{{% block {block} %}}{{% endblock %}}" for block in FETCHED
)
# On paper nobody scrolls.
WRAP = "<style>@media print { pre { white-space: pre-wrap } }</style>"
PAGE += f"{{% block html_head_css %}}{WRAP}{{% endblock %}}"


class Renderer(IPythonRenderer):
    """Markdown as HTML, with formulas as MathML, which browsers draw without a script."""

    def inline_math(self, body):
        return latex2mathml.converter.convert(body)

    def block_math(self, body):
        return f"<p>{latex2mathml.converter.convert(body, display='block')}</p>"


def to_html(source):
    """Return Markdown as HTML."""
    renderer = Renderer(escape=False, exclude_anchor_links=True)
    return MarkdownWithMath(renderer=renderer).render(source)


def core_path(cells):
    """Yield the cells of the slides; of a Markdown cell, the part under each heading by itself."""
    for cell in cells:
        if cell.metadata.get("slideshow", {}).get("slide_type") == "skip":
            continue
        if cell.cell_type == "markdown":
            parts = filter(str.strip, HEADING.split(cell.source))
            yield from map(nbformat.v4.new_markdown_cell, parts)
        else:
            folded = cell.metadata.get("jupyter", {}).get("source_hidden", False)
            cell.metadata["transient"] = {"remove_source": folded}
            yield cell


def reveal():
    """Return the script and the style of reveal.js, which comes with sphinx-revealjs."""
    package = Path(importlib.util.find_spec("sphinx_revealjs").origin).parent
    folder = package / "_static" / "revealjs" / "dist"
    script, style = ((folder / f"reveal.{kind}").read_text("utf-8") for kind in ("js", "css"))
    # The players on the slides have controls of their own.
    return script, re.sub(r"\.controls(?![\w-])", ".controls:not(.slides *)", style)


def make(path):
    """Return the slides of a notebook as one HTML page."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = list(core_path(notebook.cells))
    script, style = reveal()
    code = HtmlFormatter(style=CODE_STYLE).get_style_defs(".highlight")
    own = {name: (HERE / name).read_text(encoding="utf-8") for name in ("slides.css", "slides.js")}
    resources = {
        "title": notebook.cells[0].source.splitlines()[0].lstrip("# "),
        "css": f"{style}\n{code}\n{own['slides.css']}",
        "reveal": script,
        "script": own["slides.js"],
    }
    exporter = HTMLExporter(extra_template_basedirs=[str(HERE.parent)], template_name="slides")
    exporter.register_filter("markdown2html", to_html)
    return exporter.from_notebook_node(notebook, resources)[0]


def make_page(path):
    """Return a whole notebook as one HTML page."""
    exporter = HTMLExporter(raw_template=PAGE)
    exporter.register_filter("markdown2html", to_html)
    return exporter.from_filename(str(path))[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: the lectures")
    parser.add_argument("--folder", type=Path, default=ROOT / "slides", help="default: slides")
    parser.add_argument("--pages", action="store_true", help="everything, to read or to print")
    arguments = parser.parse_args()
    arguments.folder.mkdir(exist_ok=True)
    for path in arguments.notebooks or sorted((ROOT / "notebooks").glob("0[1-9]_*.ipynb")):
        name = f"{path.stem}_page.html" if arguments.pages else f"{path.stem}.html"
        page = make_page(path) if arguments.pages else make(path)
        (arguments.folder / name).write_text(page, encoding="utf-8")
        print(arguments.folder / name)


if __name__ == "__main__":
    sys.exit(main())
