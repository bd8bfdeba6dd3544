"""Notebooks exported to HTML, opened from the disk by a browser that may not ask the network."""

import pytest
from nbconvert import HTMLExporter
from playwright.sync_api import expect
from test_notebooks import CHOSEN

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module", params=CHOSEN, ids=lambda path: path.stem)
def exported(request, tmp_path_factory):
    """The address of the committed notebook, exported."""
    path = tmp_path_factory.mktemp("export") / f"{request.param.stem}.html"
    html, _ = HTMLExporter().from_filename(str(request.param))
    path.write_text(html, encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def show(browser, exported):
    """A function that opens it, with scripts or without."""
    contexts = []

    def show(scripts):
        contexts.append(browser.new_context(java_script_enabled=scripts, offline=True))
        page = contexts[-1].new_page()
        page.goto(exported)
        return page

    yield show
    for context in contexts:
        context.close()


def test_every_picture_has_its_text(show):
    pictures = show(scripts=False).get_by_role("img")
    texts = pictures.evaluate_all("(all) => all.map((one) => one.getAttribute('alt'))")
    assert texts
    assert all(text and not text.startswith("No description") for text in texts)


def test_without_scripts_a_widget_shows_its_first_picture(show):
    for widget in show(scripts=False).locator(".cnnlib-page").all():
        expect(widget).to_contain_text("Run this cell to move it.")
        assert widget.locator("td").count() > 9


def test_without_network_a_widget_moves(show):
    for widget in show(scripts=True).locator(".cnnlib-page").all():
        before = widget.locator(".panels").screenshot()
        widget.get_by_role("slider").first.press("ArrowRight")
        assert widget.locator(".panels").screenshot() != before
