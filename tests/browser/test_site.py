"""The site in a browser that reaches no network: no request leaves, no error, nothing inaccessible."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest
from playwright.sync_api import expect

import notebooks

pytest.importorskip("myst_nb", reason="the site needs the group docs: try uv run --group docs")
Axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe

OPTIONS = {"preload": False, "resultTypes": ["violations"]}  # preloading would ask for a server
NOTEBOOKS = [
    path.relative_to(notebooks.ROOT).with_suffix("").as_posix() for path in notebooks.PATHS
]
TEXTS = ["index", "glossary", "reference", "teaching"]
PAGES = TEXTS + (NOTEBOOKS if os.environ.get("CNNLIB_BROWSER") == "all" else NOTEBOOKS[:1])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site as it is published; return its folder."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", notebooks.ROOT / "docs", folder]
    subprocess.run(command, check=True, env=os.environ | {"GITHUB_REPOSITORY": "owner/name"})
    return folder


def open_window(browser, theme):
    """Open a window that reaches nothing but files; `faults` is what it asked for, and its errors.

    Nothing fades: half a change of colors has a contrast that no reader sees.
    """
    page = browser.new_page(
        viewport={"width": 1280, "height": 900}, color_scheme=theme, reduced_motion="reduce"
    )
    page.faults = []

    def route(asked):
        if asked.request.url.startswith(("file:", "data:")):
            return asked.continue_()
        page.faults.append(f"asks for {asked.request.url}")
        return asked.abort()

    page.route("**/*", route)
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("console", lambda line: line.type == "error" and page.faults.append(line.text))
    return page


@pytest.fixture(params=["light", "dark"])
def window(browser, request):
    """A window of `open_window`, light and dark."""
    page = open_window(browser, request.param)
    yield page
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("name", PAGES)
def test_a_page_needs_no_network_and_is_accessible(site, window, name):
    window.goto((site / f"{name}.html").as_uri())
    assert window.faults == []
    found = Axe().run(window, options=OPTIONS).response["violations"]
    grave = [each for each in found if each["impact"] in ("serious", "critical")]
    assert [
        f"{each['id']}: {node['html'][:200]}" for each in grave for node in each["nodes"][:3]
    ] == []


@pytest.mark.browser
def test_what_moves_in_a_notebook_moves_without_a_kernel(site, browser):
    moved = 0
    for name in NOTEBOOKS:
        page = open_window(browser, "light")
        page.goto((site / f"{name}.html").as_uri())
        for each in page.locator(".cnnlib-page, .cnnlib-front").all():
            before = each.inner_html()
            each.locator("select, input[type=range]").first.press("End")
            expect(each).not_to_have_js_property("innerHTML", before)
            moved += 1
        assert page.faults == []
        page.close()
    assert moved > 5


@pytest.mark.browser
def test_search_finds(site, window):
    window.goto((site / "search.html").as_uri() + "?q=dilation")
    window.locator("#search-results li a", has_text="Dilation").first.wait_for()
    assert window.faults == []


class Links(HTMLParser):
    """The links of a page, and the names in it that a link may lead to."""

    def __init__(self, path):
        super().__init__()
        self.links, self.names = set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.names.add(given.get("id"))
        self.links |= {given[key] for key in ("href", "src") if given.get(key)}


@pytest.fixture(scope="module")
def pages(site):
    return {path: Links(path) for path in site.rglob("*.html") if "_static" not in path.parts}


def test_every_link_inside_leads_somewhere(pages):
    broken = []
    for path, page in pages.items():
        for link in page.links:
            address, _, name = unquote(link).partition("#")
            if re.match(r"[a-z]+:", link):
                continue
            target = (path.parent / address.partition("?")[0]).resolve() if address else path
            there = target.exists() and (
                not name or target not in pages or name in pages[target].names
            )
            broken += [] if there else [f"{path.name}: {link}"]
    assert broken == []


def test_no_page_loads_anything_from_elsewhere(pages):
    loads = r'<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="(?:https?:)?//[^"]*'
    for path in pages:
        assert re.findall(loads, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_each_notebook_says_where_it_runs_and_what_comes_next(site, pages, name):
    links = pages[(site / f"{name}.html").resolve()].links
    assert f"https://mybinder.org/v2/gh/owner/name/main?labpath={name}.ipynb" in links
    assert f"https://colab.research.google.com/github/owner/name/blob/main/{name}.ipynb" in links
    text = (site / f"{name}.html").read_text(encoding="utf-8")
    assert f"%cd cnnlib-course/{name.rpartition('/')[0]}" in re.sub("<[^>]+>", "", text)
    assert 'title="next page"' in text
    assert 'title="previous page"' in text


def test_every_page_says_where_the_course_runs(pages):
    for page in pages.values():
        assert any(link.startswith("https://mybinder.org/v2/gh/owner/name/") for link in page.links)
        assert "https://colab.research.google.com/github/owner/name" in page.links


def test_the_landing_page_has_a_picture_of_each_lecture(site):
    text = (site / "index.html").read_text(encoding="utf-8")
    lectures = [name for name in NOTEBOOKS if "deeper" not in name]
    assert len(re.findall(r'<img [^>]*src="_images/0\d_\w+\.png"', text)) == len(lectures) == 8
