"""A browser, a server, and a window: the tests of this folder share them."""

import shutil

import pytest
from playwright.sync_api import sync_playwright

import notebooks
from chromium import CHROMIUM
from lab import Lab, serve


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def course(tmp_path_factory):
    """A copy of the notebooks and the records: a learner's runs change nothing in the repository."""
    folder = tmp_path_factory.mktemp("course")
    for name in ("notebooks", "results"):
        shutil.copytree(notebooks.ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def server(course):
    """JupyterLab on that copy."""
    with serve(course) as address:
        yield address


@pytest.fixture(scope="module")
def lab(browser, server):
    """A window of it."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    yield Lab(page, server)
    page.close()
