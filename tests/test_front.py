"""The interactive front: its numbers as a table, its refusals, and its script in a browser."""

import re

import pytest

from chromium import open_page
from cnnlib.measure.front import Front, Point

POINTS = [
    Point("big", 0.9, 0.01, {"MACs": 3e8, "seconds": 0.02}),
    Point("small </script>", 0.8, 0.0, {"MACs": 2e6, "seconds": 0.03}),
    Point("beaten", 0.7, 0.0, {"MACs": 5e6}),
]


def test_without_a_script_the_numbers_stand_in_a_table_the_cheapest_first():
    page = Front(POINTS)._repr_html_()
    rows = re.findall("<tr><td>(.*?)</td>", page)
    assert rows == ["network", "small &lt;/script&gt;", "beaten", "big"]
    assert "<td>0.900</td><td>0.010</td><td>3e+08</td><td>0.02</td>" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert repr(Front(POINTS)) == "3 networks over MACs, seconds"


def test_what_a_log_scale_cannot_show_is_refused():
    with pytest.raises(ValueError, match="points is empty: pass at least one"):
        Front([])
    for number in (0, float("nan")):
        with pytest.raises(ValueError, match=r"'MACs' of 'a' is .*: try leaving it out"):
            Front([Point("a", 0.5, 0.0, {"MACs": number})])


@pytest.mark.browser
def test_a_reader_chooses_the_cost_and_points_at_a_network(tmp_path):
    script = """
    const root = document.querySelector(".cnnlib-front");
    const look = () => ({
      front: [...root.querySelectorAll("g.on")].map((g) => g.querySelector("text").textContent),
      all: root.querySelectorAll("g").length,
    });
    found.macs = look();
    root.querySelectorAll("g")[2].onfocus();
    found.said = root.querySelector("p").textContent;
    const choice = root.querySelector("select");
    choice.value = "seconds";
    choice.dispatchEvent(new Event("change"));
    found.seconds = look();
    """
    found = open_page(tmp_path, Front(POINTS)._repr_html_(), script)
    assert found["macs"] == {"front": ["small </script>", "big"], "all": 3}
    assert found["seconds"] == {"front": ["big"], "all": 2}
    assert found["said"] == (
        "beaten: accuracy 0.700, std 0.000; MACs: 5 M. Beaten by small </script>."
    )


@pytest.mark.browser
def test_names_stay_inside_the_picture_and_the_best_has_one(tmp_path):
    names = "a linear layer", "a small network", "a small network for longer", "a wide network"
    accuracies = 0.5, 0.99, 0.995, 0.999
    points = [
        Point(name, accuracy, 0.0, {"MACs": 4**i})
        for i, (name, accuracy) in enumerate(zip(names, accuracies, strict=True))
    ]
    script = """
    const root = document.querySelector(".cnnlib-front"), svg = root.querySelector("svg");
    const { width, height } = svg.viewBox.baseVal;
    found.named = [...root.querySelectorAll("g.named text")].map((text) => text.textContent);
    found.cut = [...svg.querySelectorAll("text")].filter((text) => {
      const box = text.getBBox();
      return box.x < 0 || box.y < 0 || box.x + box.width > width || box.y + box.height > height;
    }).filter((text) => text.parentNode === svg || text.parentNode.matches(".named"))
      .map((text) => text.textContent);
    """
    found = open_page(tmp_path, Front(points)._repr_html_(), script)
    assert found["named"] == list(names)
    assert found["cut"] == []
