"""Explorers: change a hyperparameter, and the formula, the sizes and the picture follow.

They hold no arithmetic: numbers come from `arithmetic`, pictures from `plots`. Where no layer takes
the hyperparameters, or a picture would be too large to read, the reason stands in its place.
"""

from base64 import b64encode
from html import escape
from io import BytesIO

import numpy as np
from ipywidgets import HTML, BoundedIntText, HBox, IntSlider, Layout, Text, ToggleButtons, VBox
from matplotlib import colormaps
from matplotlib.image import imsave

from cnnlib.arithmetic import (
    contributions,
    conv_size,
    conv_transpose_size,
    hdc,
    receptive_field,
    unread,
)
from cnnlib.explore import panels
from cnnlib.explore.sliding_window import (
    conv_transpose_scatter,
    conv_transpose_zero_insertion,
    conv_walk,
)

LARGEST_SIZE, LARGEST_KERNEL = 512, 11  # pixels
PIXELS = np.random.default_rng(0).integers(0, 6, (LARGEST_SIZE, LARGEST_SIZE), dtype=np.int8)
WEIGHTS = np.random.default_rng(3).integers(-1, 3, (LARGEST_KERNEL, LARGEST_KERNEL))
WIDEST_FIELD = 99  # pixels: more could not be told apart
WIDTH, HEIGHT = 740, 420  # of the cells of a picture, in CSS pixels
SMALLEST_CELL = 15  # CSS pixels that a number takes

STYLE = f"""<style>
.cnnlib-explorer {{
  box-sizing: border-box; max-width: 900px; padding: 8px; background: white; color: black;
  font: 17px/1.45 "DejaVu Sans", Verdana, sans-serif;
}}
.cnnlib-explorer p {{ margin: 4px 0; }}
.cnnlib-explorer .refusal {{ border-left: 6px solid {panels.ACTIVE}; padding-left: 10px; }}
.cnnlib-explorer .panels {{ display: flex; gap: 36px; align-items: flex-start; }}
.cnnlib-explorer .label {{
  display: flex; align-items: flex-end; width: 0; height: 2.7em; margin: 2px 0 4px;
  font-size: 15px; white-space: pre;
}}
.cnnlib-explorer .grid {{
  display: grid; grid-template-columns: repeat(var(--columns), var(--side));
  grid-auto-rows: var(--side); font-size: calc(var(--side) * var(--digit)); width: max-content;
}}
.cnnlib-explorer .grid span {{
  position: relative; display: flex; align-items: center; justify-content: center;
  border: 1px solid {panels.GREY}; margin: 0 -1px -1px 0; background: var(--fill);
}}
.cnnlib-explorer .grid .others {{
  background: white; border-style: dashed; color: {panels.GREY};
}}
.cnnlib-explorer .grid span:empty {{ background-color: white; }}
.cnnlib-explorer .grid .unused {{
  background-image:
    repeating-linear-gradient(135deg, {panels.GREY} 0 2px, transparent 2px 8px);
  text-shadow: 0 0 4px white, 0 0 4px white, 0 0 4px white, 0 0 4px white;
}}
.cnnlib-explorer .grid .active {{
  background: {panels.ACTIVE_FILL}; color: black; z-index: 1;
  outline: 3px solid {panels.ACTIVE}; outline-offset: -2px;
}}
.cnnlib-explorer .key {{ color: {panels.GREY}; font-size: 15px; white-space: pre-wrap; }}
.cnnlib-explorer table {{ border-collapse: collapse; font-size: 16px; }}
.cnnlib-explorer td, .cnnlib-explorer th {{ padding: 1px 14px 1px 0; text-align: left; }}
.cnnlib-explorer .rows {{ display: grid; grid-template-columns: max-content auto; gap: 6px 14px; }}
.cnnlib-explorer .rows .grid {{ margin: auto; }}
</style>"""


class Explorer(VBox):
    """Controls, a text and a picture, which follow every change of a control at once.

    Attributes:
        controls: the widgets, by the name of their hyperparameter.
        text: HTML, what `describe` says, or why it refuses.
        picture: HTML, what `draw` shows, or why it refuses.

    Args:
        controls: as above.
        describe: a function of the hyperparameters that returns HTML or raises ValueError.
        draw: another, called where `describe` does not refuse.
    """

    def __init__(self, controls, describe, draw):
        self.controls, self.describe, self.draw = controls, describe, draw
        self.text, self.picture = HTML(), HTML()
        self.update()
        for control in controls.values():
            control.observe(self.update, names="value")
        row = HBox(list(controls.values()), layout=Layout(flex_flow="row wrap"))
        super().__init__([HTML(STYLE), row, self.text, self.picture])

    def update(self, change=None):
        """Say and draw what belongs to the values of the controls."""
        values = {name: control.value for name, control in self.controls.items()}
        try:
            self.text.value = _page(self.describe(**values))
        except ValueError as refusal:
            self.text.value, self.picture.value = _page(_refusal(refusal)), ""
            return
        try:
            self.picture.value = _page(self.draw(**values))
        except ValueError as refusal:
            self.picture.value = _page(_refusal(f"No picture: {refusal}"))


class WalkExplorer(Explorer):
    """An explorer whose picture is a step of a walk, with a slider from step to step.

    Attributes:
        step: the slider.

    Args:
        controls, describe: as above.
        walk: a function of the hyperparameters that returns a `plots.Walk`.
    """

    def __init__(self, controls, describe, walk):
        self.walk = walk
        self.step = _slider("step", 1, 1, 1, width=WIDTH)
        super().__init__(controls, describe, self.draw_step)
        self.step.observe(self.update, names="value")
        self.children = (*self.children[:-1], self.step, self.picture)

    def draw_step(self, **hyperparameters):
        """Draw the step of the walk that the slider is at, the last one where there are fewer."""
        walk = self.walk(**hyperparameters)
        self.step.max = walk.frames
        return _walk_picture(walk, self.step.value - 1)


# The explorers


def conv_explorer(size=7, kernel=3, stride=1, padding=0, dilation=1):
    """Explore a convolution: its output size, the pixels it never reads, each of its steps.

    Args:
        size: input pixels, to start with, and so for all of them.
        kernel: taps.
        stride: input pixels from one window to the next.
        padding: zeros added on each side.
        dilation: input pixels from one tap to the next.
    """
    controls = {
        "size": _box("size", size),
        "kernel": _slider("kernel", kernel, 1, LARGEST_KERNEL),
        "stride": _slider("stride", stride, 1, 8),
        "padding": _slider("padding", padding, 0, 8),
        "dilation": _slider("dilation", dilation, 1, 8),
    }

    def walk(size, kernel, **options):
        return conv_walk(PIXELS[:size, :size], WEIGHTS[:kernel, :kernel], **options)

    return WalkExplorer(controls, _describe_conv, walk)


def transposed_explorer(size=3, kernel=3, stride=2, padding=0, output_padding=0, dilation=1):
    """Explore a transposed convolution: its output size, and the steps of either view of it.

    Args:
        size: input pixels, to start with, and so for all of them.
        kernel: taps.
        stride: output pixels from one scaled kernel to the next.
        padding: output pixels cropped on each side.
        output_padding: output pixels more at the far edges.
        dilation: output pixels from one tap to the next.
    """
    views = [("scatter", conv_transpose_scatter), ("zero insertion", conv_transpose_zero_insertion)]
    controls = {
        "view": ToggleButtons(options=views),
        "size": _box("size", size),
        "kernel": _slider("kernel", kernel, 1, LARGEST_KERNEL),
        "stride": _slider("stride", stride, 1, 8),
        "padding": _slider("padding", padding, 0, 8),
        "output_padding": _slider("output_padding", output_padding, 0, 8),
        "dilation": _slider("dilation", dilation, 1, 8),
    }

    def describe(view, **hyperparameters):
        return _describe_transposed(**hyperparameters)

    def walk(view, size, kernel, **options):
        return view(PIXELS[:size, :size], WEIGHTS[:kernel, :kernel], **options)

    return WalkExplorer(controls, describe, walk)


def dilation_explorer(rates=(1, 2, 5), kernel=3):
    """Explore a stack of dilated convolutions: its field, the HDC rule, and what it never reads.

    Args:
        rates: the dilation of each layer, input first, to start with.
        kernel: taps along an axis, to start with.
    """
    controls = {
        "rates": Text(", ".join(map(str, rates)), description="rates", **_look(276)),
        "kernel": _slider("kernel", kernel, 1, LARGEST_KERNEL),
    }

    def describe(rates, kernel):
        return _describe_dilation(_rates(rates), kernel)

    def draw(rates, kernel):
        return _dilation_picture(_rates(rates), kernel)

    return Explorer(controls, describe, draw)


def _slider(name, value, least, most, width=276):
    """Make a slider; the number beside it is a box to type in."""
    return IntSlider(value, least, max(value, most), description=name, **_look(width))


def _box(name, value):
    return BoundedIntText(value, 1, LARGEST_SIZE, description=name, **_look(276))


def _look(width):
    return {"layout": Layout(width=f"{width}px"), "style": {"description_width": "105px"}}


def _rates(text):
    """Read "1, 2, 5" as (1, 2, 5)."""
    try:
        return tuple(int(rate) for rate in text.split(","))
    except ValueError:
        raise ValueError(
            f"rates={text!r} must be whole numbers with commas between: try 1, 2, 5"
        ) from None


# Texts


def _page(content):
    return f'<div class="cnnlib-explorer">{content}</div>'


def _paragraphs(*lines):
    return "".join(f"<p>{line}</p>" for line in lines)


def _refusal(reason):
    return f'<p class="refusal">{escape(str(reason), quote=False)}</p>'


def _describe_conv(size, kernel, stride, padding, dilation):
    output = conv_size(size, kernel, stride, padding, dilation)
    dropped = unread(size, kernel, stride, padding, dilation)
    return _paragraphs(
        "output = ⌊(size + 2 padding − dilation (kernel − 1) − 1) / stride⌋ + 1",
        f"output = ⌊({size} + 2·{padding} − {dilation}·({kernel} − 1) − 1) / {stride}⌋ + 1 "
        f"= <b>{output}</b>",
        f"input rows and columns past the last window, never read: <b>{dropped}</b>",
    )


def _describe_transposed(size, kernel, stride, padding, output_padding, dilation):
    output = conv_transpose_size(size, kernel, stride, padding, output_padding, dilation)
    back = conv_size(output, kernel, stride, padding, dilation)
    dropped = unread(output, kernel, stride, padding, dilation)
    return _paragraphs(
        "output = (size − 1) stride − 2 padding + dilation (kernel − 1) + output_padding + 1",
        f"output = ({size} − 1)·{stride} − 2·{padding} + {dilation}·({kernel} − 1) "
        f"+ {output_padding} + 1 = <b>{output}</b>",
        f"the convolution takes {output} back to <b>{back}</b>; rows and columns past its last "
        f"window: <b>{dropped}</b>",
    )


RULE = "M = max(next M − 2·rate, 2·rate − next M, rate)"


def _describe_dilation(rates, kernel):
    stack = hdc(rates, kernel)
    width, holes = stack.receptive_field, len(stack.holes)
    lines = [_table_line("th", "layer", "rate", "kernel spans", "field so far", RULE)]
    for i, rate in enumerate(rates):
        span = receptive_field([(kernel, 1, 0, rate)]).size
        field = receptive_field([(kernel, 1, 0, r) for r in rates[: i + 1]]).size
        lines.append(_table_line("td", i + 1, rate, span, field, _m_formula(stack, i)))
    verdict = "accepts" if stack.accepted else "rejects"
    asked = (
        "rate 1 first" if len(rates) == 1 else f"rate 1 first, and M of layer 2 at most {kernel}"
    )
    return f"<table>{''.join(lines)}</table>" + _paragraphs(
        "field = 1 + (kernel − 1)·(sum of the rates) "
        f"= 1 + ({kernel} − 1)·({' + '.join(map(str, rates))}) = <b>{width}</b>",
        f"HDC asks for {asked}: it <b>{verdict}</b> this stack",
        f"counted: <b>{holes}</b> of {width} positions are holes, and the square field is covered "
        f"to <b>{stack.coverage:.1%}</b>",
    )


def _m_formula(stack, i):
    """Write how M of a layer comes from the M of the next."""
    if i == len(stack.rates) - 1:
        return f"{stack.m[i]}"
    rate, later = stack.rates[i], stack.m[i + 1]
    return f"max({later} − 2·{rate}, {later} − 2·({later} − {rate}), {rate}) = {stack.m[i]}"


def _table_line(tag, *cells):
    return f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in cells)}</tr>"


# Pictures


def _walk_picture(walk, index):
    """Draw a step: source, kernel above products, target, and the sum in words."""
    source, target = panels.source_panel(walk, index), panels.target_panel(walk, index)
    kernel, products = panels.kernel_panel(walk), panels.products_panel(walk, index)
    rows, columns = zip(*(panel.texts.shape for panel in (source, kernel, target)), strict=True)
    side = min(44, WIDTH / sum(columns), HEIGHT / max(rows[0], 2 * rows[1] + 1, rows[2]))
    return (
        f'<div class="panels"><div>{_grid(source, side)}</div>'
        f"<div>{_grid(kernel, side)}{_grid(products, side)}</div>"
        f"<div>{_grid(target, side)}</div></div>"
        f'<p>{panels.words(walk, index)}</p><p class="key">{panels.key(walk)}</p>'
    )


def _grid(panel, side):
    """Write a panel as a label and a grid of cells, `side` CSS pixels each."""
    masks = {"others": panel.others, "unused": panel.unused, "active": panel.active}
    cells = []
    for place in np.ndindex(panel.texts.shape):
        marks = " ".join(mark for mark, mask in masks.items() if mask[place])
        cells.append(f'<span class="{marks}">{panel.texts[place]}</span>')
    label = f'<div class="label">{panel.label}</div>'
    return label + _cells(cells, panel.texts.shape[1], side, panel.fill, panel.digit_size)


def _cells(cells, columns, side, fill, digit_size):
    style = f"--columns: {columns}; --side: {side:.1f}px; --fill: {fill}; --digit: {digit_size:.3f}"
    return f'<div class="grid" style="{style}">{"".join(cells)}</div>'


def _dilation_picture(rates, kernel):
    """Draw which positions of each layer's input reach one output, and the field in 2-D."""
    paths = [contributions(rates[i:], kernel) for i in range(len(rates))]
    width = len(paths[0])
    if width > WIDEST_FIELD:
        raise ValueError(
            f"the field is {width} pixels wide, at most {WIDEST_FIELD} can be shown: "
            "try smaller rates"
        )
    side = min(32, 720 / width)
    rows = f"<div>one output</div>{_paths_row((1,), side)}"
    for layer in range(len(rates), 0, -1):
        rows += f"<div>layer {layer} reads</div>{_paths_row(paths[layer - 1], side)}"
    return (
        f'<div class="rows">{rows}</div>'
        "<p>Each number counts the paths from its position to the output; hatched ones have none. "
        "Below, the square field: the darker, the more paths; white has none.</p>"
        f"{_field_map(paths[0])}"
    )


def _paths_row(counts, side):
    cells = []
    for count in counts:
        text = count if side > SMALLEST_CELL else " "
        cells.append(f"<span>{text}</span>" if count else '<span class="unused"></span>')
    digit_size = min(0.42, 1.1 / len(str(max(counts))))
    return _cells(cells, len(counts), side, panels.SOURCE_FILL, digit_size)


def _field_map(paths):
    """Draw the square field as an image, a pixel each: dark with many paths, white with none."""
    counts = np.outer(paths, paths).astype(float)
    shades = np.where(counts > 0, 0.4 + 0.6 * np.log1p(counts) / np.log1p(counts.max()), 0)
    buffer = BytesIO()
    imsave(buffer, colormaps["Blues"](shades), format="png")
    side = max(3, 260 // len(paths)) * len(paths)
    return (
        f'<img src="data:image/png;base64,{b64encode(buffer.getvalue()).decode()}" width="{side}" '
        f'height="{side}" style="image-rendering: pixelated; border: 1px solid {panels.GREY}" '
        'alt="The square field: dark where many paths lead to the output, white where none does.">'
    )
