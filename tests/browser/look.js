// What an eye sees at once and a test must measure, in the outputs of a notebook.

const outputs = () => [...document.querySelectorAll(".jp-OutputArea-output")];

// The outputs and panels of which a part lies outside, to be reached by scrolling sideways or not at all.
function cutOff() {
  const panels = document.querySelectorAll(".cnnlib-page .panels, .cnnlib-page .controls");
  return [...outputs(), ...panels]
    .filter((box) => box.scrollWidth > box.clientWidth + 1)
    .map((box) => `${box.scrollWidth} in ${box.clientWidth} pixels: ${box.innerText.slice(0, 80)}`);
}

// Red, green, blue and opacity of a colour, each from 0 to 1.
function channels(colour) {
  const [red, green, blue, opacity = 1] = colour.match(/[\d.]+/g).map(Number);
  return [red / 255, green / 255, blue / 255, opacity];
}

function background(element) {
  for (let at = element; at; at = at.parentElement) {
    const colour = channels(getComputedStyle(at).backgroundColor);
    if (colour[3] === 1) return colour;
  }
  return [1, 1, 1, 1];
}

function luminance(colour) {
  const [red, green, blue] = colour.map((part) =>
    (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

// The contrast of a colour with what is behind an element, from 1 to 21, as WCAG defines it.
function contrast(element, colour = getComputedStyle(element).color) {
  const both = [channels(colour), background(element)].map(luminance);
  const [dark, light] = both.sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}

// The texts whose contrast is below 4.5, what WCAG asks of ordinary text.
function faint() {
  return outputs().flatMap((output) => [...output.querySelectorAll("*")])
    .filter((element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
    .filter((element) => element.checkVisibility() && contrast(element) < 4.5)
    .map((element) => `${contrast(element).toFixed(1)}: ${element.textContent.slice(0, 80)}`);
}

// What is wrong with the outline of the element that has the focus: WCAG asks for 2 pixels and a contrast of 3.
function faintFocus() {
  const element = document.activeElement, { outlineStyle, outlineWidth, outlineColor } = getComputedStyle(element);
  const least = Math.min(...[element, element.parentElement].map((each) => contrast(each, outlineColor)));
  const isClear = outlineStyle !== "none" && parseFloat(outlineWidth) >= 2 && least >= 3;
  return isClear ? [] : [`${outlineStyle} ${outlineWidth} of contrast ${least.toFixed(1)}: ${element.outerHTML.slice(0, 80)}`];
}
