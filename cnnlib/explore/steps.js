// Sizes, steps and words of cnnlib for a page without a kernel; tests compare them with Python's.

class Refusal extends Error {}

const MAX_STEPS = 144, MAX_SIDE = 24, LARGEST = 512; // LARGEST: of what can be typed
const MINUS = "\u2212", TIMES = "\u00d7", NO_BREAK = "\u00a0";

const range = (n) => Array.from({ length: n }, (_, i) => i);
const square = (n) => range(n * n).map((i) => [Math.floor(i / n), i % n]); // its cells, by rows

// Sizes along one axis

function requireWhole(least, values) {
  for (const [name, value] of Object.entries(values)) {
    if (!Number.isInteger(value) || value < least) {
      const rule = `must be a whole number, ${least} or more: try ${name}=${least}`;
      throw new Refusal(`${name}=${Number.isNaN(value) ? "" : value} ${rule}`);
    }
  }
}

function convSize({ size, kernel, stride, padding, dilation }) {
  requireWhole(1, { size, kernel, stride, dilation });
  requireWhole(0, { padding });
  const reach = dilation * (kernel - 1) + 1;
  const room = size + 2 * padding - reach;
  if (room < 0) {
    throw new Refusal(`kernel=${kernel}, ${reach} pixels wide at dilation=${dilation}, must fit `
      + `size=${size} with padding=${padding}: try size=${size - room} or a smaller kernel`);
  }
  return Math.floor(room / stride) + 1;
}

function transposedSize({ size, kernel, stride, padding, output_padding, dilation }) {
  requireWhole(1, { size, kernel, stride, dilation });
  requireWhole(0, { padding, output_padding });
  const most = Math.max(stride, dilation) - 1;
  if (output_padding > most) {
    throw new Refusal(`output_padding=${output_padding} must be smaller than stride=${stride} or `
      + `dilation=${dilation}: try output_padding=${most}`);
  }
  const uncropped = (size - 1) * stride + dilation * (kernel - 1) + output_padding + 1;
  if (uncropped <= 2 * padding) {
    throw new Refusal(`padding=${padding} crops both sides and must leave some of ${uncropped} `
      + `output pixels: try padding=${Math.floor((uncropped - 1) / 2)}`);
  }
  return uncropped - 2 * padding;
}

// The pixels that no window reads, past the last window and between the taps.
function unreadPixels(options) {
  const read = new Set();
  for (const window of range(convSize(options))) {
    for (const tap of range(options.kernel)) {
      read.add(window * options.stride - options.padding + tap * options.dilation);
    }
  }
  const unread = range(options.size).filter((pixel) => !read.has(pixel));
  const past = unread.filter((pixel) => pixel > Math.max(...read)).length;
  return { past, between: unread.length - past };
}

function hdc(rates, kernel) {
  rates.forEach((rate) => requireWhole(1, { rate }));
  requireWhole(1, { kernel });
  const m = [rates.at(-1)];
  for (const rate of rates.slice(0, -1).reverse()) {
    m.unshift(Math.max(m[0] - 2 * rate, 2 * rate - m[0], rate));
  }
  const accepted = rates[0] === 1 && (m.length === 1 || m[1] <= kernel);
  return { m, accepted, paths: contributions(rates, kernel) };
}

// How many paths lead from each position of the receptive field to the output.
function contributions(rates, kernel) {
  let paths = [1];
  for (const rate of rates) {
    const wider = Array(paths.length + rate * (kernel - 1)).fill(0);
    for (const tap of range(kernel)) paths.forEach((n, i) => { wider[i + tap * rate] += n; });
    paths = wider;
  }
  return paths;
}

// Steps. Cells are numbered row by row. A step is [read, write] of the first tap, and each tap adds
// its own offsets: target[write + dw] += source[read + dr] * weight.

function place(name, values, side = values.length, start = 0, spacing = 1, others = "") {
  const grid = { label: `${name} ${values.length} x ${values.length}`, columns: side };
  grid.values = range(side ** 2).map(() => 0);
  grid.data = range(side ** 2).map(() => 0);
  for (const [row, column] of square(values.length)) {
    const cell = (start + row * spacing) * side + start + column * spacing;
    grid.values[cell] = values[row][column];
    grid.data[cell] = 1;
  }
  if (grid.data.includes(0)) grid.label += `\n${others}: ${side} x ${side}`;
  return grid;
}

const zeros = (n) => Array(n).fill(Array(n).fill(0));
const corner = (values, n) => values.slice(0, n).map((row) => row.slice(0, n));
const cellsApart = (count, stride, columns, start = 0) =>
  square(count).map(([i, j]) => (start + i * stride) * columns + start + j * stride);

function gather(title, source, kernel, count, stride, dilation, start = 0) {
  const reads = cellsApart(count, stride, source.columns, start);
  const taps = cellsApart(kernel.columns, dilation, source.columns);
  const steps = reads.map((read, write) => [read, write]);
  const target = place("output", zeros(count));
  return { title, source, kernel, target, taps: taps.map((tap) => [tap, 0]), steps };
}

function requireReadable(steps, grids) {
  if (steps ** 2 > MAX_STEPS) {
    throw new Refusal(`steps=${(steps ** 2).toLocaleString("en-US")}, ${steps} x ${steps}, must be `
      + `at most ${MAX_STEPS} to be shown: try a smaller input`);
  }
  for (const [name, [side, cause]] of Object.entries(grids)) {
    if (side > MAX_SIDE) {
      throw new Refusal(`${name}=${side} x ${side} cells must be at most ${MAX_SIDE} per side to `
        + `be shown: try a smaller ${cause ? `input or ${cause}` : name}`);
    }
  }
}

function convSteps(pixels, weights, options) {
  const { size, kernel, stride, padding, dilation } = options;
  const count = convSize(options), side = size + 2 * padding;
  requireReadable(count, { input: [side, "padding"], kernel: [kernel] });
  const title = `Convolution: stride ${stride}, padding ${padding}, dilation ${dilation}`;
  const input = place("input", corner(pixels, size), side, padding, 1, "padded");
  return gather(title, input, place("kernel", corner(weights, kernel)), count, stride, dilation);
}

const transposedTitle = (view, { stride, padding, output_padding, dilation }) =>
  `Transposed convolution by ${view}: stride ${stride}, padding ${padding}, `
  + `output_padding ${output_padding}, dilation ${dilation}`;

function scatterSteps(pixels, weights, options) {
  const { size, kernel, stride, padding, dilation } = options;
  const count = transposedSize(options), side = count + 2 * padding;
  requireReadable(size, { kernel: [kernel], output: [side, "stride"] });
  return {
    title: transposedTitle("scatter", options),
    source: place("input", corner(pixels, size)),
    kernel: place("kernel", corner(weights, kernel)),
    target: place("output", zeros(count), side, padding, 1, "before the cut"),
    taps: cellsApart(kernel, dilation, side).map((tap) => [0, tap]),
    steps: cellsApart(size, stride, side).map((write, read) => [read, write]),
  };
}

function zeroInsertionSteps(pixels, weights, options) {
  const { size, kernel, stride, padding, output_padding, dilation } = options;
  const count = transposedSize(options), margin = dilation * (kernel - 1) - padding;
  const before = Math.max(margin, 0), after = Math.max(margin + output_padding, 0);
  const side = before + (size - 1) * stride + 1 + after;
  requireReadable(count, { input: [side, "stride"], kernel: [kernel] });
  const title = transposedTitle("zero insertion", options);
  const input = place("input", corner(pixels, size), side, before, stride, "with zeros");
  const flipped = corner(weights, kernel).reverse().map((row) => row.reverse());
  const start = Math.max(-margin, 0); // padding larger than the kernel reaches
  return gather(title, input, place("flipped kernel", flipped), count, 1, dilation, start);
}

// A link is one multiplication: the cell that it reads, its tap, and the cell that it writes.
const stepLinks = ({ taps, steps }, step) =>
  taps.map(([dr, dw], tap) => ({ read: steps[step][0] + dr, tap, write: steps[step][1] + dw }));

const product = ({ source, kernel }, { read, tap }) => source.values[read] * kernel.values[tap];

function totals(model) {
  let values = model.target.values;
  return model.steps.map((_, step) => {
    values = values.slice();
    for (const link of stepLinks(model, step)) values[link.write] += product(model, link);
    return values;
  });
}

// Words

function number(value) {
  const text = Number.isInteger(value) ? String(value) : value.toFixed(2);
  return text.replace("-", MINUS);
}

// No-break spaces keep a sign and its term on one line; up to four terms show their factors.
function sum(model, links) {
  const terms = links.map((link) => (links.length > 4 ? number(product(model, link))
    : number(model.source.values[link.read]) + TIMES + number(model.kernel.values[link.tap])));
  const text = terms.join(` +${NO_BREAK}`).replaceAll(`+${NO_BREAK}${MINUS}`, MINUS + NO_BREAK);
  const total = links.reduce((total, link) => total + product(model, link), 0);
  return `${text} =${NO_BREAK}${number(total)}`;
}

function stepSentence(model, step) {
  const links = stepLinks(model, step), [{ read, write }] = links;
  const words = links.every((link) => link.write === write) ? sum(model, links)
    : `${number(model.source.values[read])} times every weight, added to the framed output cells`;
  return `step ${step + 1} of ${model.steps.length}: ${words}`;
}

// What a cell depends on or reaches, by the links that end in it.
function cellSentence(model, end, links) {
  if (!links.length) return `this cell: no step ${end}s it`;
  if (end === "write") return `this output: ${sum(model, links)}`;
  const cells = links.length === 1 ? "1 output cell" : `${links.length} output cells`;
  return `this input, ${number(model.source.values[links[0].read])}, reaches ${cells}`;
}

function describeConv(options) {
  const { size, kernel, stride, padding, dilation } = options;
  const output = convSize(options), { past, between } = unreadPixels(options);
  return [
    "output = ⌊(size + 2 padding − dilation (kernel − 1) − 1) / stride⌋ + 1",
    `output = ⌊(${size} + 2·${padding} − ${dilation}·(${kernel} − 1) − 1) / ${stride}⌋ `
    + `+ 1 = <b>${output}</b>`,
    `input rows and columns never read: past the last window <b>${past}</b>, `
    + `between windows and taps <b>${between}</b>`,
  ];
}

function describeTransposed(options) {
  const { size, kernel, stride, padding, output_padding, dilation } = options;
  const output = transposedSize(options), back = { ...options, size: output };
  return [
    "output = (size − 1) stride − 2 padding + dilation (kernel − 1) + output_padding + 1",
    `output = (${size} − 1)·${stride} − 2·${padding} + ${dilation}·(${kernel} − 1) `
    + `+ ${output_padding} + 1 = <b>${output}</b>`,
    `the convolution takes ${output} back to <b>${convSize(back)}</b>; rows and columns past its `
    + `last window: <b>${unreadPixels(back).past}</b>`,
  ];
}

function describeDilation({ rates, kernel }) {
  const { m, accepted, paths } = hdc(rates, kernel), width = paths.length;
  const layers = rates.map((rate, i) => {
    const field = contributions(rates.slice(0, i + 1), kernel).length, next = m[i + 1];
    const rule = `max(${next} − 2·${rate}, 2·${rate} − ${next}, ${rate}) = `;
    return `layer ${i + 1}: rate ${rate}, field so far ${field}, M = ${next ? rule : ""}${m[i]}`;
  });
  const second = rates.length > 1 ? `, and M of layer 2 at most ${kernel}` : "";
  const holes = paths.filter((count) => !count).length;
  return [
    "field = 1 + (kernel − 1)·(sum of the rates); "
    + "M = max(next M − 2·rate, 2·rate − next M, rate)",
    `field = 1 + (${kernel} − 1)·(${rates.join(" + ")}) = <b>${width}</b>`,
    ...layers,
    `HDC asks for rate 1 first${second}: it <b>${accepted ? "accepts" : "rejects"}</b> this stack`,
    `counted: <b>${holes}</b> of ${width} positions are holes, and the square field is covered to `
    + `<b>${(100 * (1 - holes / width) ** 2).toFixed(1)}%</b>`,
  ];
}

function parseRates(text) {
  const rates = text.split(",").map((rate) => (rate.trim() ? Number(rate) : NaN));
  if (rates.every(Number.isInteger)) return rates;
  throw new Refusal(`rates='${text}' must be whole numbers separated by commas: try 1, 2, 5`);
}

const EXPLORERS = {
  conv: [describeConv, convSteps],
  scatter: [describeTransposed, scatterSteps],
  "zero insertion": [describeTransposed, zeroInsertionSteps],
  dilation: [describeDilation],
};
