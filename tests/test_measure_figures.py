"""Quality over cost, and the roofline, drawn as they were measured."""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from cnnlib.measure import figures


def test_a_trade_off_has_a_point_for_each_network_and_joins_the_front():
    points = {"a": (1.0, 0.7, 0.1), "b": (100.0, 0.9, 0), "c": (50.0, 0.6, 0.2)}
    (axes,) = figures.trade_off(points, "MACs", front=["a", "b"]).axes
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "MACs")
    assert (axes.get_yscale(), axes.get_ylabel()) == ("linear", "test accuracy")
    assert {text.get_text(): text.xy for text in axes.texts} == {
        name: point[:2] for name, point in points.items()
    }
    (line,) = [line for line in axes.lines if len(line.get_xdata()) == 2]
    assert line.get_xydata().tolist() == [[1, 0.7], [100, 0.9]]
    bars = [bar.get_segments()[0][:, 1].tolist() for bar in axes.collections]
    assert bars == [pytest.approx([0.6, 0.8]), pytest.approx([0.4, 0.8])]
    (axes,) = figures.trade_off({"a": (1, 10, 0)}, "MACs", "images a second", log=True).axes
    assert (axes.get_yscale(), axes.get_ylabel()) == ("log", "images a second")


def test_the_roof_rises_with_the_bandwidth_up_to_the_peak():
    (axes,) = figures.roofline({"a": (2.0, 3e9), "b": (500.0, 80e9)}, 100e9, 10e9).axes
    roof, a, b = axes.lines
    intensity, height = roof.get_xydata().T
    assert intensity[1] == 10
    assert height.tolist() == pytest.approx([10 * intensity[0], 100, 100])
    assert a.get_xydata().tolist() == [[2, 3]]
    assert b.get_xydata().tolist() == [[500, 80]]
    assert intensity[0] < 2 < 500 <= intensity[2]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_names_of_points_do_not_cover_each_other():
    points = {f"network {i}": (1.0 + 0.01 * (i % 3), 0.5 + 0.002 * i, 0) for i in range(7)}
    points["far"] = (1e4, 0.5, 0)
    figure = figures.trade_off(points, "MACs")
    (axes,) = figure.axes
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = [Text.get_window_extent(text, renderer) for text in axes.texts]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_recipes_have_a_dot_per_run_and_a_panel_each():
    runs = {"whole": [0.9, 0.92], "without": [0.93, 0.95], "broken": [0.1, 0.2]}
    figure = figures.recipe_panels({"a": runs, "b": runs}, "accuracy", off_scale=["broken"])
    first, second = figure.axes
    assert [first.get_title(), second.get_title()] == ["a", "b"]
    assert [text.get_text() for text in first.texts] == ["far off: 0.10 to 0.20"]
    dots = [line.get_xdata() for line in first.lines if line.get_marker() == "o"]
    assert [list(xs) for xs in dots] == [[0.9, 0.92], [0.93, 0.95]]
    with pytest.raises(ValueError, match="must all have the same recipes"):
        figures.recipe_panels({"a": runs, "b": {"whole": [1.0]}}, "accuracy")


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: figures.trade_off({}, "MACs"), "points={} must be a dictionary"),
        (lambda: figures.trade_off({"a": (0, 0.5, 0.1)}, "MACs"), "'a'.*above 0"),
        (lambda: figures.trade_off({"a": (1, 0.5, 0.1)}, "MACs", front=["b"]), "try some of"),
        (lambda: figures.trade_off({"a": (1, 0, 0)}, "MACs", log=True), "'a'.*above 0"),
        (lambda: figures.roofline({}, 1, 1), "points={} must be a dictionary"),
        (lambda: figures.roofline({"a": (1, 0)}, 1, 1), "'a'.*above 0"),
    ],
)
def test_trade_off_and_roofline_refuse_what_they_cannot_draw(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_condition_curves_draw_the_mean_of_the_seeds_with_a_band_and_a_label_at_each_line():
    runs = {"a": [[0.9, 0.5, 0.4], [0.7, 0.3, 0.2]], "b": [[0.8, 0.8, 0.3]]}
    (axes,) = figures.condition_curves(runs, "pixels", "accuracy").axes
    assert [list(line.get_ydata()) for line in axes.lines] == [
        pytest.approx([0.8, 0.4, 0.3]),
        pytest.approx([0.8, 0.8, 0.3]),
    ]
    corners = axes.collections[0].get_paths()[0].vertices
    assert {tuple(corner) for corner in corners} >= {(0, 0.7), (0, 0.9), (2, 0.2), (2, 0.4)}
    assert [text.get_text() for text in axes.texts] == ["a", "b"]
    assert abs(axes.texts[0].get_position()[1] - axes.texts[1].get_position()[1]) > 0.05
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("pixels", "accuracy")


@pytest.mark.parametrize("runs", [{"a": [[1.0], [1.0, 2.0]]}, {"a": [[1.0]], "b": [[1.0, 2.0]]}])
def test_condition_curves_refuse_runs_of_several_lengths(runs):
    with pytest.raises(ValueError, match="one length"):
        figures.condition_curves(runs, "pixels")


def test_path_maps_mark_each_pixel_without_a_path():
    figure = figures.path_maps({"rate 2": [1, 0, 1], "rate 1": [1, 1, 1]})
    left, right = ([text.get_text() for text in axes.texts] for axes in figure.axes)
    assert (left.count("×"), right.count("×")) == (5, 0)
    assert [axes.get_title() for axes in figure.axes] == ["rate 2", "rate 1"]
    with pytest.raises(ValueError, match="with 1 or more"):
        figures.path_maps({})
