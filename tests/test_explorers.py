"""The pages: their script computes what Python does, and answers as a learner moves them."""

import json
import random
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from py_mini_racer import MiniRacer

from chromium import open_page
from cnnlib import arithmetic, explore
from cnnlib.explore import page
from cnnlib.explore.explorers import LARGEST, PIXELS, WEIGHTS
from cnnlib.explore.sliding_window import MAX_SIDE

MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
SQUARE = [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
SMALL = [[0, 1], [2, 3]]
VALUES = [array[:MAX_SIDE, :MAX_SIDE].tolist() for array in (PIXELS, WEIGHTS)]
SCRIPT = Path(page.__file__).with_name("steps.js").read_text(encoding="utf-8")

ENGINE = MiniRacer()
ENGINE.eval(SCRIPT)


def javascript(function, *arguments):
    """Call a function of the script; a refusal is the text of a ValueError."""
    values = ", ".join(json.dumps(argument) for argument in arguments)
    answer = ENGINE.eval(
        f"(() => {{ try {{ return JSON.stringify({{ value: {function}({values}) }}); }}"
        "catch (error) { if (!(error instanceof Refusal)) throw error;"
        "return JSON.stringify({ refusal: error.message }); } })()"
    )
    answer = json.loads(answer)
    if "refusal" in answer:
        raise ValueError(answer["refusal"])
    return answer["value"]


def outcome(function, *arguments, **options):
    """Return what a function returns, or what its ValueError says."""
    try:
        return function(*arguments, **options)
    except ValueError as refusal:
        return str(refusal)


def draw_values(generator, **ranges):
    """Draw a value of each range, both ends included."""
    return {name: generator.randint(*ends) for name, ends in ranges.items()}


CONV = {"size": (0, 12), "kernel": (0, 5), "stride": (0, 4), "padding": (0, 3), "dilation": (0, 3)}
TRANSPOSED = {**CONV, "size": (0, 6), "output_padding": (0, 3)}


def plain(text):
    """Return a text without its tags."""
    return unescape(re.sub(r"<[^>]*>", "", text))


# The script computes what Python does


@pytest.mark.parametrize(
    ("function", "steps", "ranges"),
    [
        ("convSteps", explore.conv_steps, CONV),
        ("scatterSteps", explore.transposed_scatter_steps, TRANSPOSED),
        ("zeroInsertionSteps", explore.transposed_zero_insertion_steps, TRANSPOSED),
    ],
)
def test_steps_and_refusals_are_those_of_python(function, steps, ranges):
    generator, refused = random.Random(0), 0
    for _ in range(500):
        values = draw_values(generator, **ranges)
        size, kernel, *_ = values.values()
        options = {name: values[name] for name in values if name not in ("size", "kernel")}
        window = outcome(steps, PIXELS[:size, :size], WEIGHTS[:kernel, :kernel], **options)
        found = outcome(javascript, function, *VALUES, values)
        if isinstance(window, str):
            assert found == window, values
            refused += 1
        else:
            assert {"kind": "player", **found} == page.model(window), values
            totals = window.totals.reshape(window.num_steps, -1).tolist()
            assert javascript("totals", found) == totals, values
    assert 100 < refused < 480


def test_a_picture_too_large_is_refused_in_the_words_of_python():
    for size, kernel, stride, padding in ((224, 11, 4, 2), (20, 3, 9, 3), (30, 26, 1, 0)):
        input, weights = np.zeros((size, size)), np.zeros((kernel, kernel))
        expected = outcome(explore.conv_steps, input, weights, stride, padding)
        values = {"size": size, "kernel": kernel, "stride": stride, "padding": padding}
        assert outcome(javascript, "convSteps", *VALUES, {**values, "dilation": 1}) == expected
        assert "to be shown: try a smaller" in expected


def test_unread_pixels_are_those_without_a_gradient():
    generator = random.Random(0)
    for _ in range(300):
        values = draw_values(
            generator, size=(6, 14), kernel=(1, 3), stride=(1, 5), padding=(0, 2), dilation=(1, 2)
        )
        x = torch.zeros(1, 1, values["size"], requires_grad=True)
        options = {name: values[name] for name in ("stride", "padding", "dilation")}
        F.conv1d(x, torch.ones(1, 1, values["kernel"]), **options).sum().backward()
        unread = javascript("unreadPixels", values)
        assert unread["past"] == arithmetic.dropped_pixels(**values)
        assert unread["past"] + unread["between"] == (x.grad == 0).sum()


def test_hdc_is_that_of_python():
    generator = random.Random(0)
    for _ in range(200):
        rates = [generator.randint(1, 9) for _ in range(generator.randint(1, 4))]
        kernel = generator.randint(1, 4)
        found, stack = javascript("hdc", rates, kernel), arithmetic.hdc(rates, kernel)
        assert (tuple(found["m"]), found["accepted"]) == (stack.m, stack.accepted)
        assert tuple(found["paths"]) == arithmetic.contributions(rates, kernel)


@pytest.mark.parametrize("rates", [[1, 0], [-1]])
def test_hdc_refuses_in_the_words_of_python(rates):
    assert outcome(javascript, "hdc", rates, 3) == outcome(arithmetic.hdc, rates, 3)


def test_what_no_control_may_hold_is_refused():
    values = {"size": 7, "kernel": 3, "stride": 1, "padding": 0, "dilation": 1}
    for text, shown in (("NaN", ""), ("1.5", "1.5"), ("-1", "-1")):
        options = json.dumps({**values, "stride": "?"}).replace('"?"', text)
        refusal = ENGINE.eval(f"try {{ convSize({options}) }} catch (error) {{ error.message }}")
        assert refusal == f"stride={shown} must be a whole number, 1 or more: try stride=1"
    assert javascript("LARGEST + Number", "") == LARGEST


# The words


@pytest.mark.parametrize(
    ("window", "words"),
    [
        (
            explore.conv_steps(SQUARE, SMALL),
            f"step 2 of 4: 1{TIMES}0 + 2{TIMES}1 + 4{TIMES}2 + 5{TIMES}3 = 25",
        ),
        (explore.conv_steps([[1, 2, 3]], [[-2]]), f"step 2 of 3: 2{TIMES}{MINUS}2 = {MINUS}4"),
        (
            explore.conv_steps(np.ones((1, 6)), [[1, -2, 3, -4, 0.5]]),
            f"step 2 of 2: 1 {MINUS} 2 + 3 {MINUS} 4 + 0.50 = {MINUS}1.50",
        ),
        (
            explore.transposed_scatter_steps([[3, -1]], [[1, 2]]),
            f"step 2 of 2: {MINUS}1 times every weight, added to the framed output cells",
        ),
    ],
)
def test_words_of_the_second_step(window, words):
    assert javascript("stepSentence", page.model(window), 1).replace("\xa0", " ") == words


def test_conv_has_the_numbers_put_in_and_tells_apart_what_is_never_read():
    values = {"size": 8, "kernel": 3, "stride": 3, "padding": 0, "dilation": 2}
    _, formula, unread = map(plain, javascript("describeConv", values))
    assert formula == f"output = ⌊(8 + 2·0 {MINUS} 2·(3 {MINUS} 1) {MINUS} 1) / 3⌋ + 1 = 2"
    assert unread.endswith("never read: past the last window 0, between windows and taps 2")


def test_transposed_has_the_numbers_put_in_and_goes_back():
    values = {"size": 3, "kernel": 4, "stride": 2, "padding": 1, "output_padding": 1}
    _, formula, back = map(plain, javascript("describeTransposed", {**values, "dilation": 1}))
    assert formula.replace(MINUS, "-") == "output = (3 - 1)·2 - 2·1 + 1·(4 - 1) + 1 + 1 = 7"
    assert back == "the convolution takes 7 back to 3; rows and columns past its last window: 0"


def test_dilation_is_told_layer_by_layer():
    lines = javascript("describeDilation", {"rates": [1, 2, 5], "kernel": 3})
    text = plain("\n".join(lines)).replace(MINUS, "-")
    assert "field = 1 + (3 - 1)·(1 + 2 + 5) = 17" in text
    assert "layer 1: rate 1, field so far 3, M = max(2 - 2·1, 2·1 - 2, 1) = 1" in text
    assert "layer 2: rate 2, field so far 7, M = max(5 - 2·2, 2·2 - 5, 2) = 2" in text
    assert "layer 3: rate 5, field so far 17, M = 5" in text
    assert "M of layer 2 at most 3: it accepts this stack" in text
    assert "0 of 17 positions are holes, and the square field is covered to 100.0%" in text


def test_the_rule_and_the_count_may_disagree():
    lines = javascript("describeDilation", {"rates": [2, 1], "kernel": 3})
    assert "it rejects this stack" in plain(lines[-2])
    assert "0 of 7 positions are holes" in plain(lines[-1])


@pytest.mark.parametrize("text", ["", "1, 2,", "1; 2", "1.5"])
def test_rates_half_typed_explain_themselves(text):
    expected = f"rates='{text}' must be whole numbers separated by commas: try 1, 2, 5"
    assert outcome(javascript, "parseRates", text) == expected
    assert javascript("parseRates", "1,2 , 5") == [1, 2, 5]


# The page


PAGES = {
    "player": explore.conv_steps(np.ones((5, 5)), np.ones((3, 3)), padding=1).player,
    "conv": lambda: explore.conv_explorer(size=8, kernel=3, stride=3, dilation=2),
    "transposed": lambda: explore.transposed_explorer(padding=1),
    "dilation": explore.dilation_explorer,
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_small_the_same_each_time_and_needs_nothing_else(name):
    html = PAGES[name]()._repr_html_()
    assert len(html.encode()) < 40_000
    assert html == PAGES[name]()._repr_html_()
    assert not re.search(r"https?:|src=|href=|@import|url\(", html)
    assert html.count("</script>") == 2
    assert "\n" not in repr(PAGES[name]())
    assert len(repr(PAGES[name]())) < 100


def without_script(made):
    """Return the words of a page whose scripts do not run, and whose template stays unused."""
    html = re.sub(r"<(script|template).*?</\1>", "", made._repr_html_(), flags=re.DOTALL)
    return " ".join(plain(re.sub("</(td|p)>", " ", html)).split())


def test_without_its_script_a_page_holds_the_first_picture():
    player = explore.conv_steps(SQUARE, SMALL).player()
    assert without_script(player) == (
        "Run this cell to move it. Convolution: stride 1, padding 0, dilation 1: step 1 of 4 "
        "input 3 x 3 0 1 2 3 4 5 6 7 8 kernel 2 x 2 0 1 2 3 output 2 x 2 19 · · ·"
    )
    assert re.findall(r"<b>(\d+)</b>", player._repr_html_()) == ["0", "1", "3", "4", "19"]
    assert "output 2 x 2" in without_script(explore.conv_explorer(size=5, kernel=2, stride=3))
    assert "0 of 17 positions are holes" in without_script(explore.dilation_explorer())


def test_an_explorer_may_start_with_what_no_layer_takes():
    refusal = outcome(arithmetic.conv_size, 7, 9)
    assert without_script(explore.conv_explorer(size=7, kernel=9)).endswith(refusal)


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (lambda: explore.conv_explorer(size=-1), "size=-1 must be a whole number from 1 to 512"),
        (lambda: explore.conv_explorer(size=7.0), "size=7.0 must be a whole number"),
        (
            lambda: explore.transposed_explorer(kernel=10**6),
            "kernel=1000000 must be a whole number",
        ),
        (
            lambda: explore.dilation_explorer((50,)),
            "field=101 pixels must be at most 99 to be shown",
        ),
    ],
)
def test_an_explorer_may_start_with_what_cannot_be_drawn(page, reason):
    assert reason in without_script(page())


def test_an_explorer_may_start_with_numpy_numbers():
    two = np.int64(2)
    page = explore.conv_explorer(kernel=two, stride=two)
    assert page._repr_html_() == explore.conv_explorer(kernel=2, stride=2)._repr_html_()


def test_the_first_step_of_an_explorer_multiplies_something():
    assert PIXELS[0, 0] * WEIGHTS[0, 0]


def test_pairs_and_fractions_reach_the_script():
    window = explore.transposed_scatter_steps([[0.5, 1]], [[1, -2]], stride=2, padding=(0, 1))
    model = page.model(window)
    assert model["source"]["values"] == [0.5, 1]
    assert (
        np.reshape(javascript("totals", model)[-1], (1, -1)).tolist() == window.totals[-1].tolist()
    )


# In a browser

HELPERS = """
const pages = [...document.querySelectorAll(".cnnlib-page")];
const at = (page, selector, i = 0) => pages[page].querySelectorAll(selector)[i];
const cell = (page, grid, i) => at(page, `.${grid} [role=gridcell]`, i);
const words = (page) => at(page, "output").textContent.replaceAll("\\u00a0", " ");
const marked = (page, grid, mark) => [...pages[page].querySelectorAll(`.${grid} [role=gridcell]`)]
  .flatMap((cell, i) => (cell.matches(mark) ? [i] : []));
const notes = (page, grid) => [...pages[page].querySelectorAll(`.${grid} [data-note]`)]
  .map((cell) => cell.dataset.note);
const fire = (element, type) => element.dispatchEvent(new Event(type, { bubbles: true }));
const press = (key) => {
  document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  if (!document.hasFocus()) fire(document.activeElement, "focusin"); // a hidden window is sent none
};
const type = (page, name, value) => {
  const labels = [...pages[page].querySelectorAll("label")];
  const label = labels.find((label) => label.firstChild.data === name);
  const input = label.querySelector("input, select");
  input.value = value;
  fire(input, "input");
};
const said = (page) => at(page, "[role=status]").innerText;
"""


def browse(folder, pages, script):
    """Open pages in a browser, run a script that fills `found`, and return that."""
    html = "".join(made._repr_html_() for made in pages)
    return open_page(folder, html, HELPERS + script)


@pytest.mark.browser
def test_a_player_plays_and_shows_what_is_pointed_at(tmp_path):
    window = explore.conv_steps(SQUARE, SMALL)
    scatter = explore.transposed_scatter_steps([[1, 2], [3, 4]], [[1, 2], [3, 4]])
    script = """
    found.first = words(0);
    at(0, "button", 2).click();
    found.next = [words(0), at(0, "[type=range]").getAttribute("aria-valuetext")];
    fire(cell(0, "target", 3), "mouseover");
    found.output = [words(0), marked(0, "source", ".active"), notes(0, "source"),
      marked(0, "kernel", ".active"), cell(0, "target", 3).textContent];
    fire(cell(0, "source", 4), "mouseover");
    found.input = [words(0), marked(0, "target", ".active"), notes(0, "target")];
    at(0, ".source").dispatchEvent(new Event("mouseleave"));
    found.left = [words(0), cell(0, "target", 3).textContent];
    found.keys = [...pages[0].querySelectorAll("button, input, [role=gridcell]")]
      .every((element) => element.dataset.lmSuppressShortcuts);
    found.stops = pages[0].querySelectorAll("[tabindex='0']").length;
    cell(0, "source", 0).focus();
    press("ArrowDown");
    press("ArrowRight");
    found.focus = [words(0), marked(0, "source", "[tabindex='0']"),
      document.activeElement === cell(0, "source", 4)];
    document.activeElement.blur();
    fire(cell(1, "target", 4), "mouseover");
    found.scatter = [words(1), marked(1, "source", ".active"), notes(1, "source")];
    fire(cell(0, "target", 0), "mouseover");
    at(0, "button", 1).click();
    found.back = [words(0), marked(0, "target", ".active")];
    at(0, "button", 0).click();
    const state = () => [at(0, "button").textContent, at(0, "output").getAttribute("aria-live")];
    found.play = state();
    setTimeout(() => {
      found.end = [words(0), ...state()];
      publish();
    }, 5000);
    """
    found = browse(tmp_path, [window.player(), scatter.player()], script)
    fourth = f"4{TIMES}0 + 5{TIMES}1 + 7{TIMES}2 + 8{TIMES}3 = 43"
    second = f"step 2 of 4: 1{TIMES}0 + 2{TIMES}1 + 4{TIMES}2 + 5{TIMES}3 = 25"
    assert found["first"].startswith("step 1 of 4")
    assert found["next"] == [second, "step 2 of 4"]
    weights = [TIMES + text for text in "0123"]
    assert found["output"] == [f"this output: {fourth}", [4, 5, 7, 8], weights, [0, 1, 2, 3], "43"]
    products = ["+12", "+8", "+4", "+0"]  # the input is 4, and meets the last weight first
    assert found["input"] == ["this input, 4, reaches 4 output cells", [0, 1, 2, 3], products]
    assert found["left"] == [second, ""]
    assert found["keys"]  # JupyterLab would take them for shortcuts
    assert found["stops"] == 2
    assert found["focus"] == ["this input, 4, reaches 4 output cells", [4], True]
    sum_of_four = f"this output: 1{TIMES}4 + 2{TIMES}3 + 3{TIMES}2 + 4{TIMES}1 = 20"
    assert found["scatter"] == [sum_of_four, [0, 1, 2, 3], [TIMES + text for text in "4321"]]
    assert found["back"][0].startswith("step 1 of 4")
    assert found["back"][1] == [0]
    assert found["play"] == ["Pause", "off"]
    assert found["end"] == [f"step 4 of 4: {fourth}", "Play", "polite"]


@pytest.mark.browser
def test_explorers_follow_their_controls(tmp_path):
    script = """
    found.unread = [said(0), marked(0, "source", ".unused").length];
    type(0, "stride", 1);
    at(0, "[aria-label=step]").value = 15;
    fire(at(0, "[aria-label=step]"), "input");
    found.step = words(0);
    type(0, "stride", 2);
    found.fewer = words(0);
    const before = pages[0].innerText;
    type(0, "kernel", 9);
    found.refusal = [said(0), pages[0].querySelectorAll("[role=gridcell]").length];
    type(0, "kernel", 3);
    found.recovers = pages[0].innerText === before;
    type(0, "size", 600);
    found.largest = said(0);
    type(0, "size", 224);
    found.large = pages[0].innerText.split("\\n").at(-1);
    type(0, "size", 8);
    const box = (width) => {
      pages[0].style.width = width;
      const { clientWidth, scrollWidth } = at(0, ".panels");
      return [cell(0, "source", 0).offsetWidth, scrollWidth - clientWidth];
    };
    found.narrow = [box("480px"), box("240px")];
    found.scatter = words(1);
    found.dashed = marked(1, "target", ".others").length;
    type(1, "view", "zero insertion");
    found.insertion = words(1);
    type(1, "output_padding", 2);
    found.padding = said(1);
    type(2, "rates", "2, 2, 2");
    found.rates = [marked(2, "source", ".unused").length, said(2)];
    fire(cell(2, "source", 1), "mouseover");
    found.reach = [words(2), marked(2, "source", ".active")];
    """
    pages = [PAGES["conv"](), PAGES["transposed"](), PAGES["dilation"]()]
    found = browse(tmp_path, pages, script)
    window = explore.conv_steps(PIXELS[:8, :8], WEIGHTS[:3, :3], stride=3, dilation=2)
    assert "past the last window 0, between windows and taps 2" in found["unread"][0]
    assert found["unread"][1] == window.never_read.sum() == 28
    assert found["step"].startswith("step 16 of 16")
    assert found["fewer"].startswith("step 4 of 4")
    assert found["refusal"] == [outcome(arithmetic.conv_size, 8, 9, 2, 0, 2), 0]
    assert found["recovers"]
    assert found["largest"] == "size=600 must be at most 512: try size=512"
    assert found["large"].startswith("No picture: steps=")
    cells, overflows = zip(*found["narrow"], strict=True)
    assert 30 <= cells[0] <= 34  # pixels: there is room for the number and its note
    assert cells[1] < cells[0]
    assert overflows == (0, 0)
    assert found["scatter"].startswith("step 1 of 9: ")
    assert found["dashed"] == 7 * 7 - 5 * 5
    assert found["insertion"].startswith("step 1 of 25: ")
    refusal = outcome(arithmetic.conv_transpose_size, 3, 3, 2, 1, 2)
    assert found["padding"] == refusal
    assert found["rates"][0] == 2 + 4 + 6
    assert "6 of 13 positions are holes" in found["rates"][1]
    rows = [0], [0], [0, 2, 4], [0, 2, 4, 6, 8]  # of the rows of 1, 5, 9 and 13 cells
    starts = 0, 1, 6, 15
    active = [start + cell for start, row in zip(starts, rows, strict=True) for cell in row]
    words = "paths from this cell to the output: 1; input cells that it depends on: 5"
    assert found["reach"] == [words, active]
