"""The course as a site that needs no server and no network, from the committed notebooks.

uv run --group docs sphinx-build docs site

GITHUB_REPOSITORY=owner/name, which GitHub sets where it builds the site, adds to every page the
links that run the course on Binder or Colab, and to every notebook those that run it alone.
"""

import os
import shutil
import sys
from pathlib import Path

import latex2mathml.converter
import nbformat

DOCS = Path(__file__).parent
REPOSITORY = os.environ.get("GITHUB_REPOSITORY")

sys.path.insert(0, str(DOCS.parent))
from tools.make_index import first_picture  # noqa: E402

RUN_IT = """\
:::{{dropdown}} Run this notebook
On [your own machine](https://github.com/{repository}#readme), on
[Binder](https://mybinder.org/v2/gh/{repository}/main?labpath=notebooks/{page}), or on
[Colab](https://colab.research.google.com/github/{repository}/blob/main/notebooks/{page}).
On Colab, insert these lines as the first cell and run them. If Colab asks you to restart the
session, do so, and run them again.

```
!git clone --depth 1 https://github.com/{repository}.git cnnlib-course
%pip install --quiet ./cnnlib-course
%cd cnnlib-course/notebooks/{folder}
```
:::
"""
RUN_THE_COURSE = """\
Run the course on <a
href="https://mybinder.org/v2/gh/{repository}/main?labpath=notebooks/00_index.ipynb">Binder</a>
or <a href="https://colab.research.google.com/github/{repository}">Colab</a>.
"""


def copy_notebooks():
    """Copy the notebooks to where Sphinx can read them, and the first picture of each lecture."""
    for folder in "notebooks", "pictures":
        shutil.rmtree(DOCS / folder, ignore_errors=True)
    shutil.copytree(
        DOCS.parent / "notebooks",
        DOCS / "notebooks",
        ignore=shutil.ignore_patterns(".ipynb_checkpoints", "00_index.ipynb"),
    )
    (DOCS / "pictures").mkdir()
    for path in (DOCS / "notebooks").glob("*.ipynb"):
        (DOCS / "pictures" / f"{path.stem}.png").write_bytes(first_picture(path)[0])
    if REPOSITORY:
        for path in (DOCS / "notebooks").rglob("*.ipynb"):
            say_where_it_runs(path)


def say_where_it_runs(path):
    """Insert the links below the first cell of the copy of a notebook."""
    page = path.relative_to(DOCS / "notebooks").as_posix()
    folder = page.removesuffix(path.name)
    text = RUN_IT.format(repository=REPOSITORY, page=page, folder=folder)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell(text))
    nbformat.write(notebook, path)


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
html_show_search_summary = False  # it would be fetched, which needs a server
html_context = {"default_mode": "auto"}
html_theme_options = {
    "use_download_button": True,
    "use_fullscreen_button": False,
    "navbar_persistent": [],
    "show_toc_level": 2,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "extra_footer": RUN_THE_COURSE.format(repository=REPOSITORY) if REPOSITORY else "",
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
