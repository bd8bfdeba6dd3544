"""The index: its pictures are there, and its headings lead to the lectures."""

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


def test_the_index_shows_and_opens_the_lectures(lab):
    lab.open("notebooks/00_index.ipynb")
    pictures = lab.page.locator(".jp-Notebook img")
    expect(pictures).to_have_count(8)
    assert all(pictures.evaluate_all("(all) => all.map((one) => one.alt && one.naturalWidth)"))
    lab.page.get_by_role("heading", name="1 · Convolution").get_by_role("link").first.click()
    expect(lab.tab).to_contain_text("01_conv_arithmetic.ipynb")
