/** Words the server's verdict. */

import { h } from "./dom.js";
import { capitalised, classes, list, percent } from "./format.js";
import { nameOf } from "./tissues.js";

/** @typedef {import("./types.js").Classification} Classification */

const STATES = { unreliable: "No reliable answer", uncertain: "Uncertain", confident: "Confident" };

/** The heading of a verdict. @param {Classification} answer */
export function headline({ verdict }) {
  return verdict.state === "unreliable" ? "Unlike the training tiles" : capitalised(classes(verdict.classes));
}

/** The verdict in one or two sentences. @param {Classification} answer */
export function explanation(answer) {
  const { verdict, prediction, probabilities } = answer;
  if (verdict.state === "unreliable") {
    const closest = `${nameOf(prediction.code).toLowerCase()} (${percent(prediction.probability)})`;
    return `Closest class: ${closest}. Do not rely on it: scanner, stain, magnification or tissue may differ.`;
  }
  if (verdict.state === "confident") return `The model gives it ${percent(prediction.probability)}. ${hitRate(answer)}`;
  const shares = verdict.classes.map((code) => `${percent(probabilities[code])} to ${nameOf(code).toLowerCase()}`);
  return `The model gives ${list(shares, "and")}. ${hitRate(answer)}`;
}

/** How often the model was right at this confidence. @param {Classification} answer */
export function hitRate({ verdict }) {
  const { test_tiles: bin } = verdict;
  if (!bin) return "";
  const range = `${percent(bin.low)} to ${percent(bin.high)}`;
  const words = bin.low === 0 ? `under ${percent(bin.high)}` : bin.high === 1 ? `${percent(bin.low)} or more` : range;
  return `Of the test tiles given ${words}, ${bin.right} of ${bin.tiles} were right.`;
}

/** The statement on tumour-related tissue; null if there is nothing to say. @param {Classification} answer */
export function tumourStatement({ verdict, probabilities }) {
  const share = percent(verdict.tumour_share);
  if (verdict.tumour_related) {
    const parts = `(epithelium ${percent(probabilities.TUM)}, stroma ${percent(probabilities.STR)})`;
    return `Tumour-related tissue: ${share} ${parts}. It should be seen by a pathologist.`;
  }
  if (verdict.state === "unreliable") return null;
  if (verdict.tumour_threshold === null) return `Tumour-related tissue: ${share}. No threshold was chosen for this model.`;
  const threshold = percent(verdict.tumour_threshold);
  return `Tumour-related tissue: ${share}, less than the ${threshold} from which a tile is flagged. One tile says nothing about the slide.`;
}

/** @param {Classification} answer */
export function verdictCard(answer) {
  const { verdict } = answer;
  const statement = tumourStatement(answer);
  return h(
    "section",
    { class: `card verdict ${verdict.state}`, "aria-labelledby": "verdict" },
    h("p", { class: "pill" }, STATES[verdict.state]),
    h("h1", { id: "verdict", tabindex: "-1" }, headline(answer)),
    h("p", {}, explanation(answer)),
    statement && h("p", { id: "tumour", class: verdict.tumour_related ? "flag" : "note" }, statement),
    ...(answer.notes ?? []).map((note) => h("p", { class: "note" }, note)),
  );
}
