// The page: a grid of cells, the steps that play in grids, and the controls that change them.

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  element.dataset.lmSuppressShortcuts = "true"; // of JupyterLab, such as d d
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// A grid is one tab stop, and arrow keys move within it. `lookAt` receives the cell that has the
// pointer or the focus, or null if none has.
function makeGrid(kind, label, { columns, data }, longest, lookAt) {
  const cells = data.map((isData) =>
    make("span", { role: "gridcell", class: isData ? "" : "others" }));
  const rows = range(data.length / columns).map((row) =>
    make("div", { role: "row" }, ...cells.slice(row * columns, (row + 1) * columns)));
  const style = `--columns: ${columns}; --digit: ${Math.min(0.42, 1.1 / longest).toFixed(3)}`;
  const grid = make("div", { role: "grid", class: kind, style, "aria-label": label }, ...rows);
  if (lookAt) {
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    const enter = ({ target }) => lookAt(cells.includes(target) ? cells.indexOf(target) : null);
    grid.onmouseover = enter;
    grid.onmouseleave = () => lookAt(null);
    grid.addEventListener("focusin", enter);
    grid.addEventListener("focusout", grid.onmouseleave);
    cells.forEach((cell, i) => { cell.tabIndex = i ? -1 : 0; });
    grid.onkeydown = (event) => {
      if (!(event.key in moves)) return;
      event.preventDefault();
      const next = cells[cells.indexOf(event.target) + moves[event.key]];
      if (!next) return;
      event.target.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    };
  }
  const draw = (texts, { active, unused, notes }) => cells.forEach((cell, i) => {
    cell.textContent = texts[i];
    cell.classList.toggle("active", Boolean(active?.has(i)));
    cell.classList.toggle("unused", Boolean(unused?.has(i)));
    cell.toggleAttribute("data-note", Boolean(notes?.has(i)));
    if (notes?.has(i)) cell.dataset.note = notes.get(i);
  });
  return { panel: make("div", {}, make("div", { class: "label" }, label), grid), draw };
}

// Play the steps of a model in an element; return a function that tells which step is shown.
function play(stage, model, start = 0) {
  const { title, source, kernel, target, steps } = model, last = steps.length - 1;
  const sums = totals(model), links = steps.flatMap((_, step) => stepLinks(model, step));
  const ends = (links, end) => new Set(links.map((link) => link[end]));
  const without = (grid, used) =>
    new Set(range(grid.data.length).filter((cell) => !used.has(cell)));
  const neverRead = without(source, ends(links, "read"));
  const neverWritten = without(target, ends(links, "write"));
  let step = Math.min(start, last), cell = null, timer = null;

  const view = (kind, grid, label, values, end) => {
    const longest = Math.max(...values.map((value) => number(value).length));
    const lookAt = (index) => { cell = index === null ? null : { end, index }; draw(); };
    return makeGrid(kind, label, grid, longest, end && lookAt);
  };
  const sources = view("source", source, source.label, source.values, "read");
  const weights = view("kernel", kernel, kernel.label, kernel.values);
  const allProducts = links.map((link) => product(model, link));
  const products = view("products", kernel, "products", allProducts);
  const targets = view("target", target, target.label, sums.flat(), "write");

  const button = (name, onclick) =>
    Object.assign(make("button", { type: "button" }, name), { onclick });
  const playOrPause = button("Play", () => {
    if (timer) return goTo(step);
    if (step === last) step = 0;
    timer = setInterval(() => (words.isConnected && ++step < last ? draw() : goTo(step)), 1000);
    draw();
  });
  const back = button("Back", () => goTo(step - 1)), next = button("Next", () => goTo(step + 1));
  const slider = make("input", { type: "range", min: 0, max: last, "aria-label": "step" });
  slider.oninput = () => goTo(Number(slider.value));
  const words = make("output");

  function goTo(index) {
    timer = clearInterval(timer);
    cell = null;
    step = Math.min(Math.max(index, 0), last);
    draw();
  }
  function draw() {
    const shown = cell ? links.filter((link) => link[cell.end] === cell.index)
      : stepLinks(model, step);
    const active = (end) => (cell?.end === end ? new Set([cell.index]) : ends(shown, end));
    const notes = (end, text) =>
      new Map(active(end).size > 1 ? shown.map((link) => [link[end], text(link)]) : []);
    const weight = ({ tap }) => TIMES + number(kernel.values[tap]);
    const share = (link) => number(product(model, link)).replace(/^(?!\u2212)/, "+");
    const written = ends(links.slice(0, (step + 1) * model.taps.length), "write");
    const texts = sums[step].map((value, i) =>
      (written.has(i) || neverWritten.has(i) ? number(value) : ""));
    if (cell) for (const i of active("write")) texts[i] = number(sums[last][i]);
    const byTap = new Map(shown.map((link) => [link.tap, number(product(model, link))]));

    sources.draw(source.values.map(number),
      { active: active("read"), unused: neverRead, notes: notes("read", weight) });
    weights.draw(kernel.values.map(number), { active: cell && byTap });
    products.draw(kernel.values.map((_, tap) => byTap.get(tap) ?? ""), {});
    targets.draw(texts,
      { active: active("write"), unused: neverWritten, notes: notes("write", share) });
    words.setAttribute("aria-live", timer ? "off" : "polite");
    words.textContent = cell ? cellSentence(model, cell.end, shown) : stepSentence(model, step);
    playOrPause.textContent = timer ? "Pause" : "Play";
    slider.value = step;
    slider.setAttribute("aria-valuetext", `step ${step + 1} of ${last + 1}`);
  }

  const marks = [
    [source.data.includes(0), "dashed: inserted zeros"],
    [target.data.includes(0), "dashed: cut off by padding"],
    [neverRead.size, "hatched: never read"],
    [neverWritten.size, "hatched: never written"],
  ].flatMap(([isShown, text]) => (isShown ? [text] : []));
  const columns = [source, kernel, target].map((grid) => grid.columns);
  const style = `--all: ${columns.reduce((a, b) => a + b)}; --widest: ${Math.max(...columns)}`;
  const middle = make("div", {}, weights.panel, products.panel);
  stage.replaceChildren(
    make("div", { class: "title" }, title),
    make("div", { class: "controls" }, playOrPause, back, next, slider),
    make("div", { class: "panels", style }, sources.panel, middle, targets.panel),
    words,
    make("div", { class: "key" }, marks.join("     ")),
  );
  draw();
  return () => step;
}

// Draw which cells of each layer's input reach one output, and the square field.
function drawRates(stage, { rates, kernel }) {
  const layers = (from, to) => contributions(rates.slice(from, to), kernel);
  const depth = rates.length, counts = range(depth + 1).map((row) => layers(depth - row));
  const paths = counts[depth], width = paths.length;
  if (width > 99) {
    throw new Refusal(`field=${width} pixels must be at most 99 to be shown: try smaller rates`);
  }
  const grids = counts.map((row, i) => {
    const label = i ? `layer ${depth - i + 1} reads` : "one output";
    const longest = Math.max(...row.map((count) => String(count).length));
    const grid = { columns: row.length, data: row.map(() => 1) };
    return makeGrid("source", label, grid, longest, (cell) => draw(i, cell));
  });
  // The cells of each row that lie on a path through this one.
  const reach = (row, cell) => counts.map((count, other) => {
    const between = layers(depth - Math.max(row, other), depth - Math.min(row, other));
    const distance = (i) => (other > row ? i - cell : cell - i);
    return new Set(range(count.length).filter((i) => count[i] && between[distance(i)]));
  });
  const words = make("output", { "aria-live": "polite" });
  function draw(row, cell) {
    const active = cell === null ? [] : reach(row, cell);
    grids.forEach((grid, i) => {
      const unused = new Set(range(counts[i].length).filter((j) => !counts[i][j]));
      const texts = counts[i].map((count) => (count && width < 46 ? count : ""));
      grid.draw(texts, { active: active[i], unused });
    });
    words.textContent = cell === null
      ? "Each number counts the paths to the output; hatched cells have none. Point at a cell."
      : `paths from this cell to the output: ${counts[row][cell]}; `
        + `input cells that it depends on: ${active[depth].size}`;
  }

  const side = Math.max(3, Math.floor(260 / width));
  const key = "The square field: darker cells have more paths, and white cells have none.";
  const size = { width: width * side, height: width * side };
  const map = make("canvas", { role: "img", "aria-label": key, ...size });
  const pen = map.getContext("2d"), most = Math.max(...paths) ** 2;
  for (const [row, column] of square(width)) {
    const shade = Math.log1p(paths[row] * paths[column]) / Math.log1p(most);
    pen.fillStyle = shade ? `hsl(205 80% ${Math.round(75 - 50 * shade)}%)` : "white";
    pen.fillRect(column * side, row * side, side, side);
  }
  const panels = grids.map(({ panel }) => panel);
  stage.replaceChildren(
    make("div", { class: "panels layers", style: `--all: ${width}` }, ...panels),
    words,
    make("div", { class: "key" }, key),
    map,
  );
  draw(0, null);
}

// Return a control's element and a function that reads it; numbers beyond the slider can be typed.
function makeControl(name, value, update) {
  const option = (text) => make("option", {}, text);
  const input = name === "view" ? make("select", {}, option(value), option("zero insertion"))
    : make("input", { type: name === "rates" ? "text" : "number", value });
  const element = make("label", {}, name, input);
  input.oninput = update;
  if (name === "view") return { element, read: () => input.value };
  if (name === "rates") return { element, read: () => parseRates(input.value) };

  const [min, max] = name === "size" ? [1, 16] : name.endsWith("padding") ? [0, 8] : [1, 8];
  const slider = make("input", { type: "range", min, max, value, "aria-label": name });
  slider.oninput = () => { input.value = slider.value; update(); };
  element.append(slider);
  const read = () => {
    slider.value = input.value;
    if (input.valueAsNumber <= LARGEST || !input.value) return input.valueAsNumber;
    throw new Refusal(`${name}=${input.value} must be at most ${LARGEST}: try ${name}=${LARGEST}`);
  };
  return { element, read };
}

function explore(card, { kind, values, pixels, weights }) {
  const text = make("div", { role: "status" }), stage = make("div");
  const shown = kind === "scatter" ? { view: kind, ...values } : values;
  const controls = Object.entries(shown).map(([name, value]) =>
    [name, makeControl(name, value, update)]);
  let stepShown = () => 0;

  // Run an action, or show why it is refused.
  function attempt(element, action, before = "") {
    try {
      return action();
    } catch (refusal) {
      if (!(refusal instanceof Refusal)) throw refusal;
      element.replaceChildren(make("p", { class: "refusal" }, before + refusal.message));
    }
  }
  function update() {
    stage.replaceChildren();
    const options = attempt(text, () => {
      const options = Object.fromEntries(controls.map(([name, { read }]) => [name, read()]));
      const [describe] = EXPLORERS[options.view ?? kind];
      text.innerHTML = describe(options).map((line) => `<p>${line}</p>`).join("");
      return options;
    });
    if (!options) return;
    const [, steps] = EXPLORERS[options.view ?? kind];
    attempt(stage, () => {
      if (steps) stepShown = play(stage, steps(pixels, weights, options), stepShown());
      else drawRates(stage, options);
    }, "No picture: ");
  }
  const elements = controls.map(([, { element }]) => element);
  card.replaceChildren(make("div", { class: "controls" }, ...elements), text, stage);
  update();
}

for (const root of document.querySelectorAll(".cnnlib-page:not([data-ready])")) {
  const data = JSON.parse(root.querySelector("script").textContent);
  const card = make("div", { class: "card" });
  root.dataset.ready = "";
  root.replaceChildren(root.querySelector("template").content, card);
  if (data.kind === "player") play(card, data);
  else explore(card, data);
}
