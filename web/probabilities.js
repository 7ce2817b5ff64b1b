/** All nine classes as bars, the prediction set as a bracket beside them. */

import { h, svg } from "./dom.js";
import { percent } from "./format.js";
import { nameOf } from "./tissues.js";

/** @typedef {import("./types.js").Classification} Classification */

/**
 * @param {Classification} answer
 * @param {(code: string) => void} choose called with the class whose map is requested
 */
export function probabilityCard(answer, choose) {
  const ordered = Object.entries(answer.probabilities).sort(([, a], [, b]) => b - a);
  const set = answer.prediction_set?.codes ?? [];
  const rows = ordered.map(([code, share]) => row(code, share, set, choose));
  const promise = answer.prediction_set && Math.round(1 / (1 - answer.prediction_set.coverage));
  return h(
    "section",
    { class: "card", "aria-labelledby": "classes" },
    h("h2", { id: "classes" }, "All nine classes"),
    h("ul", { class: "bars" }, ...rows),
    promise &&
      h(
        "p",
        { class: "hint" },
        `${promise - 1} times in ${promise} the true class is in the bracket, for tiles like the training tiles. Choose a class to see its map.`,
      ),
  );
}

/**
 * @param {string} code
 * @param {number} share
 * @param {string[]} set
 * @param {(code: string) => void} choose
 */
function row(code, share, set, choose) {
  const place = set.indexOf(code);
  const ends = [place === 0 && "first", place === set.length - 1 && "last"].filter(Boolean).join(" ");
  return h(
    "li",
    { class: place < 0 ? "" : `in-set ${ends}` },
    h(
      "button",
      { type: "button", "data-code": code, click: () => choose(code) },
      h("span", { class: "name" }, nameOf(code)),
      bar(share),
      h("span", { class: "share" }, percent(share)),
      place < 0 ? null : h("span", { class: "unseen" }, ", in the prediction set"),
    ),
  );
}

/** @param {number} share */
function bar(share) {
  return svg(
    "svg",
    { class: "track", viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { class: "rest", width: 100, height: 6 }),
    svg("rect", { class: "part", width: Math.max(0.6, 100 * share), height: 6 }),
  );
}
