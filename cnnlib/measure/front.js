// Accuracy over a cost that the reader chooses. Points answer to the pointer and to the Tab key.

function svg(tag, attributes = {}, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

// 1317000 becomes "1.32 M", and 0.00013 "0.13 m".
function short(number) {
  const power = Math.min(3, Math.max(-2, Math.floor(Math.log10(number) / 3 + 1e-9)));
  const unit = ["µ", "m", "", "k", "M", "G"][power + 2];
  return `${Number((number / 1000 ** power).toPrecision(3))}${unit && ` ${unit}`}`;
}

// The rows that no other beats: cheapest first, each better than all before.
function frontOf(rows, cost) {
  const sorted = rows.filter((row) => row.costs[cost]);
  sorted.sort((a, b) => a.costs[cost] - b.costs[cost] || b.accuracy - a.accuracy);
  let best = -1;
  return sorted.filter(({ accuracy }) => accuracy > best && ((best = accuracy), true));
}

// Where a name stands beside a point: the attributes of its text, and its box.
function besides(name, x, y, side, down) {
  const near = x + 9 * side, far = near + 8.4 * name.length * side;
  const text = { x: near, y: y + down, class: side < 0 ? "end" : "" };
  const box = { left: Math.min(near, far), right: Math.max(near, far), top: y + down - 13,
    bottom: y + down + 4 };
  return { text, box };
}

// The first place for a name that covers neither a point nor a name, or undefined.
function freePlace(name, x, y, taken, width) {
  for (const down of [-7, 18, 5, -20, 31]) {
    for (const side of [1, -1]) {
      const { text, box } = besides(name, x, y, side, down);
      const covers = (other) => box.left < other.right && other.left < box.right
        && box.top < other.bottom && other.top < box.bottom;
      const fits = box.left >= 60 && box.right <= width && box.top >= 0;
      if (!fits || taken.some(covers)) continue;
      taken.push(box);
      return text;
    }
  }
}

function drawFront(root, { costs, rows }) {
  const width = 780, height = 420, left = 58, right = 20, top = 40, bottom = 46;
  const say = document.createElement("p"), choice = document.createElement("select");
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group" });
  const label = document.createElement("label");
  costs.forEach((cost) => choice.append(new Option(cost, cost)));
  label.append("You pay with ", choice);
  say.setAttribute("aria-live", "polite");
  choice.dataset.lmSuppressShortcuts = "true";  // of JupyterLab, such as d d
  root.replaceChildren(root.querySelector("template").content, label, picture, say);

  function draw() {
    const cost = choice.value, shown = rows.filter((row) => row.costs[cost]);
    const front = frontOf(rows, cost), logs = shown.map((row) => Math.log10(row.costs[cost]));
    const low = Math.floor(Math.min(...logs)), high = Math.ceil(Math.max(...logs) + 0.3);
    const bottoms = shown.map(({ accuracy, std }) => accuracy - std);
    const worst = Math.floor(Math.min(...bottoms) * 50) / 50;
    const best = Math.ceil(Math.max(...shown.map(({ accuracy, std }) => accuracy + std)) * 50) / 50;
    const x = (value) =>
      left + ((Math.log10(value) - low) / (high - low)) * (width - left - right);
    const y = (value) => top + ((best - value) / (best - worst)) * (height - top - bottom);
    const middle = (left + width - right) / 2;
    picture.replaceChildren(svg("text", { x: middle, y: height - 6, class: "axis" }, cost));
    picture.setAttribute("aria-label", `test accuracy over ${cost}`);
    for (let power = low; power <= high; power++) {
      const at = x(10 ** power);
      picture.append(svg("path", { d: `M${at},${top}V${height - bottom}`, class: "grid" }));
      picture.append(svg("text", { x: at, y: height - 28, class: "axis" }, short(10 ** power)));
    }
    const step = best - worst > 0.25 ? 0.1 : 0.02;
    for (let value = Math.ceil(worst / step - 1e-6) * step; value <= best + 1e-6; value += step) {
      picture.append(svg("path", { d: `M${left},${y(value)}H${width - right}`, class: "grid" }));
      const place = { x: left - 8, y: y(value) + 5, class: "axis end" };
      picture.append(svg("text", place, value.toFixed(2)));
    }
    const line = front.map((row) => `${x(row.costs[cost])},${y(row.accuracy)}`).join("L");
    picture.append(svg("path", { d: `M${line}`, class: "front" }));
    say.textContent = "Point at a network, or reach it with Tab.";
    const taken = shown.map((row) => {
      const [cx, cy] = [x(row.costs[cost]), y(row.accuracy)];
      return { left: cx - 7, right: cx + 7, top: cy - 7, bottom: cy + 7 };
    });
    const places = new Map();  // the best of the front are named first
    const others = shown.filter((row) => !front.includes(row));
    for (const row of [...[...front].reverse(), ...others]) {
      const { name, accuracy } = row;
      places.set(row, freePlace(name, x(row.costs[cost]), y(accuracy), taken, width));
    }
    for (const row of [...front, ...others]) {
      const { name, accuracy, std } = row, at = x(row.costs[cost]);
      const isOn = front.includes(row);
      const above = front.find((other) => other.accuracy >= accuracy
        && other.costs[cost] <= row.costs[cost] && other !== row);
      const words = `${name}: accuracy ${accuracy.toFixed(3)}, std ${std.toFixed(3)}; `
        + costs.filter((each) => row.costs[each])
          .map((each) => `${each}: ${short(row.costs[each])}`).join("; ")
        + (isOn || !above ? ". On the front." : `. Beaten by ${above.name}.`);
      const mark = svg("g", { tabindex: 0, role: "img", "aria-label": words });
      mark.dataset.lmSuppressShortcuts = "true";
      mark.classList.toggle("on", isOn);
      const bar = `M${at},${y(accuracy - std)}V${y(accuracy + std)}`;
      const place = places.get(row);
      mark.classList.toggle("named", Boolean(place));
      mark.append(svg("path", { d: bar }), svg("circle", { cx: at, cy: y(accuracy), r: 6 }));
      mark.append(svg("text", place ?? besides(name, at, y(accuracy), 1, -7).text, name));
      mark.onmouseenter = mark.onfocus = () => { say.textContent = words; };
      picture.append(mark);
    }
  }
  choice.onchange = draw;
  draw();
}

for (const root of document.querySelectorAll(".cnnlib-front:not([data-ready])")) {
  root.dataset.ready = "";
  drawFront(root, JSON.parse(root.querySelector("script").textContent));
}
