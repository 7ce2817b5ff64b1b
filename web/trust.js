/** Gives the reasons to trust an answer, or not to. */

import { h } from "./dom.js";
import { percent } from "./format.js";
import { nameOf } from "./tissues.js";
import { hitRate } from "./verdict.js";

/** @typedef {import("./types.js").Classification} Classification */

/** @param {Classification} answer */
export function trustCard(answer) {
  const { model, prediction_set: set, verdict } = answer;
  const rows = [
    ["At this confidence", hitRate(answer) || "There are no test tiles at this confidence."],
    ["Similarity to the training tiles", likeness(answer)],
    [
      "Prediction set",
      set ? `${set.codes.map(nameOf).join(", ")} (${percent(set.coverage)} coverage)` : "None, because the tile is unlike the training tiles or the model is not calibrated.",
    ],
    ...(answer.field ? [["Field of view", fieldOfView(answer.field)]] : []),
    ...(answer.fit?.verdict ? [["Picture", picture(answer.fit)]] : []),
    ["Tumour-related share", verdict.tumour_threshold === null ? percent(verdict.tumour_share) : `${percent(verdict.tumour_share)}; flagged from ${percent(verdict.tumour_threshold)}`],
    ["Model", `${model.name} ${model.version}, weights ${model.digest.slice(0, 12)}, trained on ${model.training_data}`],
    ["Answered in", `${Math.round(1000 * answer.seconds)} ms`],
  ];
  return h(
    "details",
    { class: "card trust" },
    h("summary", {}, verdict.state === "confident" ? "Why can I trust this?" : "Why can I not trust this?"),
    h("dl", {}, ...rows.map(([term, text]) => h("div", {}, h("dt", {}, term), h("dd", {}, text)))),
  );
}

/** @param {NonNullable<Classification["field"]>} field */
function fieldOfView({ microns, assumed, mpp, source }) {
  if (microns === null) return `Not known: the image is taken for a tile of ${assumed} x ${assumed} micrometres.`;
  return `${microns} x ${microns} micrometres, at ${Number(mpp?.toPrecision(3))} a pixel (${source})`;
}

/** Whether the picture is fit to be judged. @param {{verdict: string | null, reasons: string[]}} fit */
export function picture({ verdict, reasons }) {
  return verdict === "fit" ? "Fit to be judged" : `${verdict === "unfit" ? "Unfit" : "Doubtful"}: ${reasons.join(", ").replaceAll("_", " ")}`;
}

/** @param {Classification} answer */
function likeness({ ood_score: score, in_distribution: isLike }) {
  if (score === null || isLike === null) return "The model is not calibrated.";
  const text = isLike ? "like most validation tiles" : "above the limit that holds for 95 % of validation tiles";
  return `Distance ${Number(score.toPrecision(3))}: ${text}.`;
}
