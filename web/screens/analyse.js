/** Analyse: the first screen, then the result in its place. */

import { CONTRACT } from "/contract.js";
import { h, skeleton } from "/dom.js";
import { exactPercent, list, megabytes } from "/format.js";
import { historyStrip } from "/history.js";
import { chooseFile, paste } from "/intake.js";
import { examples, evaluation, mistakes } from "/reports.js";
import { showResult } from "/screens/result.js";
import { session } from "/session.js";
import { nameOf } from "/tissues.js";

/** @param {HTMLElement} main @returns {() => void} */
export function analyse(main) {
  let leave = () => {};
  const show = () => {
    leave();
    leave = () => {};
    if (session.tile) leave = showResult(main);
    else showFirst(main);
  };
  session.addEventListener("tile", show);
  show();
  return () => {
    session.removeEventListener("tile", show);
    leave();
  };
}

/** @param {HTMLElement} main */
function showFirst(main) {
  const figures = h("section", { class: "card figures", "aria-labelledby": "figures" }, skeleton(6));
  const tries = h("ul", { class: "examples" });
  main.replaceChildren(
    h(
      "div",
      { class: "columns first" },
      h(
        "div",
        {},
        h("h1", {}, "What tissue is this, and what did the model look at?"),
        h(
          "p",
          { class: "lead" },
          "Give it one tile of H&E-stained colorectal tissue. You get one of nine tissue types, how sure the model is, and a map of the evidence.",
        ),
        h(
          "section",
          { class: "drop", "aria-label": "Choose a tile" },
          h("p", { class: "strong" }, "Drop a tile anywhere on this page"),
          h("p", { class: "hint" }, requirements()),
          h(
            "p",
            { class: "actions" },
            h("button", { type: "button", class: "primary", click: chooseFile }, "Choose a file"),
            h("button", { type: "button", click: paste }, "Paste"),
          ),
        ),
        h("h2", {}, "Or try an example"),
        tries,
        historyStrip(),
      ),
      figures,
    ),
  );
  fillFigures(figures);
  fillExamples(tries);
}

/** What the server takes, and what a tile has to show. */
function requirements() {
  const { limits, field_of_view: view } = CONTRACT;
  const best = `${view.pixels} × ${view.pixels} pixels at 20× (${view.micrometres_per_pixel} µm per pixel)`;
  return `${list(limits.formats)}, up to ${megabytes(limits.max_request_bytes)}. Best: ${best}.`;
}

/** The model's accuracy, with its worst class. @param {HTMLElement} section */
async function fillFigures(section) {
  const report = await evaluation();
  if (!report) {
    section.remove();
    return;
  }
  const tumour = report.classes.find(({ code }) => code === "TUM");
  const worst = [...report.classes].sort((a, b) => a.recall.value - b.recall.value)[0];
  const [pair] = mistakes(report);
  const { accuracy, images, model } = report;
  section.replaceChildren(
    h("h2", { id: "figures" }, "How good is it?"),
    h(
      "dl",
      {},
      figure(exactPercent(accuracy.value), `of ${images} test tiles right`, accuracy.interval),
      tumour && figure(exactPercent(tumour.recall.value), `of ${tumour.images} tumour tiles found`, tumour.recall.interval),
      worst &&
        figure(
          exactPercent(worst.recall.value),
          `of ${worst.images} ${nameOf(worst.code).toLowerCase()} tiles found, the worst class`,
          worst.recall.interval,
        ),
    ),
    pair &&
      h("p", {}, `Its most frequent confusion: it takes ${nameOf(pair.truth).toLowerCase()} for ${nameOf(pair.predicted).toLowerCase()}.`),
    h("p", { class: "hint" }, `Trained on ${model.training_data}. `, h("a", { href: "/model" }, "All figures")),
  );
}

/** @param {string} value @param {string} text @param {[number, number]} interval */
function figure(value, text, [low, high]) {
  return h("div", {}, h("dt", {}, value), h("dd", {}, `${text} (95 % interval ${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)})`));
}

/** @param {HTMLElement} tries */
async function fillExamples(tries) {
  const tiles = (await examples()).filter(({ title }) => title);
  tries.replaceChildren(
    ...tiles.map((example) => {
      const picture = h("img", { src: `/examples/${example.file}`, alt: "", width: 72, height: 72 });
      return h("li", {}, h("button", { type: "button", click: () => openExample(example.file) }, picture, h("span", {}, example.title)));
    }),
  );
  if (tiles.length) tries.after(h("p", { class: "hint" }, "A network generated these tiles. They show the page, not the model's accuracy."));
}

/** @param {string} file */
export async function openExample(file) {
  const response = await fetch(`/examples/${file}`);
  if (response.ok) await session.open({ name: file, blob: await response.blob(), headline: "" });
}
