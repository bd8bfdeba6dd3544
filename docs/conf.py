"""The course as a site that needs no server and no network, from the committed notebooks.

uv run --group docs sphinx-build docs site
"""

import base64
import shutil
from pathlib import Path

import latex2mathml.converter
import nbformat

DOCS = Path(__file__).parent


def copy_notebooks():
    """Copy the notebooks to where Sphinx can read them, and the first picture of each lecture."""
    for folder in "notebooks", "pictures":
        shutil.rmtree(DOCS / folder, ignore_errors=True)
    shutil.copytree(
        DOCS.parent / "notebooks",
        DOCS / "notebooks",
        ignore=shutil.ignore_patterns(".ipynb_checkpoints"),
    )
    (DOCS / "pictures").mkdir()
    for path in (DOCS / "notebooks").glob("*.ipynb"):
        outputs = [
            output.get("data", {})
            for cell in nbformat.read(path, as_version=4).cells
            for output in cell.get("outputs", [])
        ]
        picture = next(data["image/png"] for data in outputs if "image/png" in data)
        (DOCS / "pictures" / f"{path.stem}.png").write_bytes(base64.b64decode(picture))


copy_notebooks()

project = "Convolutional networks from the arithmetic up"
author = "The authors of the course"
project_copyright = "MIT licence"
language = "en"
extensions = [
    "myst_nb",
    "sphinx_design",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["**/.ipynb_checkpoints"]

nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
html_math_renderer = "mathml"

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_custom_sections = ["Shape", "Source", "Departures"]

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "use_download_button": True,
    "use_fullscreen_button": False,
    "navbar_persistent": [],
    "show_toc_level": 2,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def _visit_inline(translator, node):
    translator.body.append(latex2mathml.converter.convert(node.astext()))


def _visit_block(translator, node):
    formula = latex2mathml.converter.convert(node.astext(), display="block")
    translator.body.append(f'<div class="math">{formula}</div>')


def _depart(translator, node):
    pass


def setup(app):
    """Write formulas as MathML, which browsers draw without a script."""
    app.add_html_math_renderer("mathml", (_visit_inline, _depart), (_visit_block, _depart))
