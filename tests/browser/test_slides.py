"""The slides at 1280x720, without network: nothing is cut off, players work."""

import pytest

import notebooks

pytest.importorskip("sphinx_revealjs", reason="slides need the group docs: try uv run --group docs")

from tools import make_slides

pytestmark = pytest.mark.browser

LECTURES = [path for path in notebooks.PATHS if path.parent.name == "notebooks"]

CUT_OFF = """() => [...document.querySelectorAll(".slides > section")].flatMap((slide, i) => {
  slide.style.display = "block";
  const lines = [...slide.querySelectorAll("pre")].map((pre) => pre.scrollWidth - pre.clientWidth);
  const hidden = [slide.scrollHeight - slide.clientHeight, slide.scrollWidth - slide.clientWidth];
  hidden.push(...lines);
  slide.style.display = "";
  return Math.max(...hidden) > 1 ? [`slide ${i + 1} hides ${hidden} pixels`] : [];
})"""


@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.stem)
def test_nothing_is_cut_off(browser, tmp_path, path):
    deck, faults = tmp_path / "deck.html", []
    deck.write_text(make_slides.make(path), encoding="utf-8")
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.route(lambda url: not url.startswith(("file:", "data:")), lambda asked: asked.abort())
    page.on("requestfailed", lambda asked: faults.append(asked.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: line.type == "error" and faults.append(line.text))
    page.goto(deck.as_uri())
    page.locator(".reveal.ready").wait_for()
    assert page.evaluate("Reveal.getTotalSlides()") > 20
    assert page.evaluate(CUT_OFF) == []
    players = page.locator(".cnnlib-page", has=page.locator("button", has_text="Next"))
    if players.count():
        players.first.evaluate(
            """(player) => {
              const slide = player.closest("section");
              Reveal.slide([...slide.parentNode.children].indexOf(slide));
            }"""
        )
        players.first.get_by_role("button", name="Next").click()
        assert "step 2 of" in players.first.inner_text()
    assert faults == []
    page.close()


RAW = """() => [...document.querySelectorAll(".jp-RenderedMarkdown")].flatMap((cell) => {
  const text = cell.cloneNode(true);
  text.querySelectorAll("code, pre").forEach((code) => code.remove());
  return text.textContent.match(/\\$[^$]+\\$/g) ?? [];
})"""


@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.stem)
def test_a_page_asks_for_nothing_and_draws_its_formulas(browser, tmp_path, path):
    file, faults = tmp_path / "page.html", []
    file.write_text(make_slides.make_page(path), encoding="utf-8")
    page = browser.new_page()
    page.on("request", lambda asked: asked.url.startswith("http") and faults.append(asked.url))
    page.on("console", lambda line: line.type == "error" and faults.append(line.text))
    page.goto(file.as_uri())
    assert page.locator("math").count() > 0
    assert page.evaluate(RAW) == []
    assert faults == []
    page.close()
