"""What moves, by mouse and by keyboard: players, explorers and the front."""

import re

import nbformat
import pytest
from playwright.sync_api import expect

from tools.refresh_notebooks import KERNELSPEC

pytestmark = pytest.mark.browser

CELLS = [
    "import numpy as np\nfrom cnnlib import explore\nfrom cnnlib.measure.front import Front, Point",
    "explore.conv_steps(np.ones((5, 5)), np.ones((3, 3))).player()",
    "explore.conv_explorer(size=8, stride=2)",
    "explore.transposed_explorer()",
    "explore.dilation_explorer()",
    """Front([
    Point("small", 0.8, 0.0, {"MACs": 2e6, "seconds": 0.03}),
    Point("large", 0.9, 0.01, {"MACs": 3e8, "seconds": 0.02}),
    Point("old", 0.7, 0.0, {"MACs": 5e6}),
])""",
]
PLAYER, CONV, TRANSPOSED, DILATION, FRONT = range(5)


@pytest.fixture(scope="module", autouse=True)
def notebook(lab, course):
    """A notebook of these cells, opened and run."""
    cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    made = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNELSPEC})
    nbformat.write(made, course / "widgets.ipynb")
    lab.open("widgets.ipynb")
    lab.run_all()
    lab.wait()
    return "widgets.ipynb"


def shown(lab, number):
    """Return what moves, scrolled into view."""
    page = lab.page.locator(".cnnlib-page, .cnnlib-front").nth(number)
    page.scroll_into_view_if_needed()
    return page


def test_a_player_by_mouse(lab):
    player = shown(lab, PLAYER)
    words, play = player.locator("output"), player.get_by_role("button").first
    before = player.locator(".panels").screenshot()
    player.get_by_role("button", name="Next").click()
    expect(words).to_contain_text("step 2 of 9")
    assert player.locator(".panels").screenshot() != before
    player.get_by_role("button", name="Back").click()
    expect(words).to_contain_text("step 1 of 9")
    play.click()
    expect(play).to_have_text("Pause")
    expect(words).to_contain_text("step 3 of 9")
    play.click()
    expect(play).to_have_text("Play")
    player.get_by_role("gridcell").first.hover()
    expect(words).to_have_text("this input, 1, reaches 1 output cell")


def test_a_player_by_keyboard_speaks(lab):
    player, keyboard = shown(lab, PLAYER), lab.page.keyboard
    step, words = player.get_by_role("slider", name="step"), player.locator("output")
    player.get_by_role("button").first.focus()
    for _ in range(3):
        keyboard.press("Tab")
    expect(step).to_be_focused()
    for key, place in (("Home", 1), ("ArrowRight", 2), ("ArrowRight", 3), ("End", 9)):
        keyboard.press(key)
        expect(step).to_have_attribute("aria-valuetext", f"step {place} of 9")
        expect(words).to_contain_text(f"step {place} of 9")
    expect(words).to_have_attribute("aria-live", "polite")
    keyboard.press("Shift+Tab")
    keyboard.press("Shift+Tab")
    keyboard.press("Space")
    expect(step).to_have_attribute("aria-valuetext", "step 8 of 9")
    keyboard.press("d")
    keyboard.press("d")  # in JupyterLab, on a cell, this deletes it
    expect(player).to_be_visible()


@pytest.mark.parametrize("number", [CONV, TRANSPOSED])
def test_every_slider_of_an_explorer_moves_numbers_and_picture(lab, number):
    explorer = shown(lab, number)
    numbers, picture = explorer.locator("[role=status]"), explorer.locator(".panels")
    names = explorer.locator("label").all_inner_texts()
    for name in ["size", "kernel", "stride", "padding", "dilation"]:
        assert name in names
        text, pixels = numbers.text_content(), picture.screenshot()
        explorer.get_by_role("slider", name=name, exact=True).press("ArrowRight")
        expect(numbers).not_to_have_text(text)
        assert picture.screenshot() != pixels


def test_rates_that_are_typed_move_numbers_and_picture(lab):
    explorer = shown(lab, DILATION)
    numbers, picture = explorer.locator("[role=status]"), explorer.locator(".panels")
    pixels = picture.screenshot()
    explorer.get_by_label("rates").fill("2, 2, 2")
    expect(numbers).to_contain_text("6 of 13 positions are holes")
    assert picture.screenshot() != pixels
    explorer.get_by_label("rates").fill("2, two")
    expect(numbers).to_contain_text("must be whole numbers separated by commas")


def test_a_front_by_mouse(lab):
    front = shown(lab, FRONT)
    words, picture = front.locator("p"), front.locator("svg")
    expect(picture).to_have_attribute("aria-label", "test accuracy over MACs")
    assert front.locator("g").count() == 3
    pixels = picture.screenshot()
    front.get_by_label("You pay with").select_option("seconds")
    expect(picture).to_have_attribute("aria-label", "test accuracy over seconds")
    assert front.locator("g").count() == 2  # the old one was not timed
    assert picture.screenshot() != pixels
    front.get_by_role("img", name="small").hover()
    expect(words).to_have_text(
        "small: accuracy 0.800, std 0.000; MACs: 2 M; seconds: 30 m. Beaten by large."
    )


def test_a_front_by_keyboard_speaks(lab):
    front, keyboard = shown(lab, FRONT), lab.page.keyboard
    words, choice = front.locator("p"), front.get_by_label("You pay with")
    choice.focus()
    for key, cost in (("Home", "MACs"), ("s", "seconds"), ("ArrowUp", "MACs")):
        keyboard.press(key)
        expect(choice).to_have_value(cost)
    for name in ("small", "large"):
        keyboard.press("Tab")
        expect(words).to_contain_text(f"{name}: accuracy")
        expect(words).to_contain_text("On the front.")
    expect(words).to_have_attribute("aria-live", "polite")
    keyboard.press("d")
    keyboard.press("d")  # in JupyterLab, on a cell, this deletes it
    expect(front).to_be_visible()


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_what_has_the_focus_is_seen_and_has_a_name(lab, theme):
    lab.choose_theme(theme)
    keyboard = lab.page.keyboard
    for number in (PLAYER, CONV, TRANSPOSED, DILATION, FRONT):
        controls = shown(lab, number).locator("button, input, select, [tabindex='0']")
        controls.first.focus()
        keyboard.press("Tab")
        keyboard.press("Shift+Tab")
        for control in controls.all():
            expect(control).to_be_focused()
            expect(control).to_have_accessible_name(re.compile(r"\w"))
            assert lab.faint_focus() == []
            keyboard.press("Tab")


@pytest.mark.parametrize("width", [1280, 768])
@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_widgets_are_whole_and_legible(lab, theme, width):
    lab.choose_theme(theme)
    lab.resize(width)
    assert lab.cut_off() == []
    assert lab.faint() == []


def test_reopened_they_move_without_a_kernel_s_help(lab, notebook):
    lab.reopen(notebook)
    assert lab.failures() == []
    player = shown(lab, PLAYER)
    player.get_by_role("button", name="Next").click()
    expect(player.locator("output")).to_contain_text("step 2 of 9")
    expect(shown(lab, CONV).locator("[role=status]")).to_contain_text("output = ")


def test_the_console_is_silent(lab):
    assert lab.console == []
