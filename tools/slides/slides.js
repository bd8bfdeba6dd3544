// Lays the cells of the notebook out on slides. A heading begins a slide. What does not fit begins
// another one, under the same heading; what is too large for a slide of its own is made smaller.

const SMALLEST = 0.5; // of a block that has a slide of its own
const SMALLER = 0.85; // of a block that would just not fit below the others
const stage = document.getElementById("stage"); // where reveal.js hides nothing yet

function newSlide() {
  const slide = document.createElement("section");
  stage.append(slide);
  return slide;
}

function overflows(slide) {
  return slide.scrollHeight > slide.clientHeight || slide.scrollWidth > slide.clientWidth;
}

function headings(slide) {
  return [...slide.children].filter(child => child.matches("h1, h2, h3"));
}

function continued(slide) {
  const heading = headings(slide).at(-1)?.cloneNode(true);
  const next = newSlide();
  if (heading) {
    heading.classList.add("again");
    next.append(heading);
  }
  return next;
}

function blocksOf(cell) {
  const text = cell.querySelector(":scope > * > .jp-InputArea > .jp-MarkdownOutput");
  if (text) return [...text.children];
  const blocks = [...cell.querySelectorAll(".jp-InputArea .highlight")];
  for (const output of cell.querySelectorAll(".jp-OutputArea-child")) {
    const isCaption = output.querySelector(".jp-MarkdownOutput") && output.previousElementSibling;
    if (isCaption) blocks.at(-1).append(output);
    else blocks.push(output);
  }
  return blocks;
}

function fit(block, slide, smallest) {
  for (let zoom = 1; overflows(slide) && zoom >= smallest; zoom -= 0.05) block.style.zoom = zoom;
}

function layOut() {
  let slide = newSlide(), asked = false;
  for (const cell of document.querySelectorAll("#cells > .jp-Cell")) {
    if (asked) slide = continued(slide); // what follows a question may answer it
    asked = cell.querySelector("h2, h3")?.textContent.startsWith("Predict");
    for (const block of blocksOf(cell)) {
      const onlyHeadings = headings(slide).length === slide.children.length;
      if (block.matches("h1, h2, h3") && !onlyHeadings) slide = newSlide();
      slide.append(block);
      if (!onlyHeadings) {
        fit(block, slide, SMALLER);
        if (!overflows(slide)) continue;
        slide = continued(slide);
        slide.append(block);
      }
      block.style.zoom = 1;
      fit(block, slide, SMALLEST);
    }
  }
  document.getElementById("cells").remove();
  document.querySelector(".slides").append(...stage.children);
}

addEventListener("load", () => {
  layOut();
  Reveal.initialize({
    width: 1280, height: 720, margin: 0, center: false, hash: true, slideNumber: "c/t",
    transition: "none",
    keyboardCondition: event => !event.target.closest(".cnnlib-page"), // a player has keys, too
  });
});
