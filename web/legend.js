/** Says what the colours of a map mean. */

import { h } from "./dom.js";
import { balance } from "./evidence.js";
import { methodOf } from "./methods.js";
import { nameOf } from "./tissues.js";

/** @typedef {import("./types.js").EvidenceMap} EvidenceMap */

/** The colours of a map and what they mean. @param {EvidenceMap} map @returns {(Node | string)[]} */
export function legendOf(map) {
  const { target, contrast } = map.question;
  const scale = h("span", { class: map.signed ? "scale both" : "scale" });
  const ends = map.signed
    ? [h("strong", {}, nameOf(contrast)), scale, h("strong", {}, nameOf(target))]
    : ["no evidence", scale, h("span", {}, "for ", h("strong", {}, nameOf(target)))];
  const drawn = [
    methodOf(map.question.method).claim,
    `full colour at ${Number(map.high.toPrecision(2))} ${map.unit}`,
    map.percentile < 100 && `clipped at the ${map.percentile}th percentile`,
    map.sigma > 0 && `smoothed (σ ${map.sigma} px of 224)`,
  ];
  return [
    h("p", { class: "ends" }, ...ends),
    h("p", { class: "hint" }, drawn.filter(Boolean).join("; ")),
    ...(map.signed ? [h("p", {}, balanceOf(map))] : []),
  ];
}

/** @param {EvidenceMap} map */
function balanceOf(map) {
  const sum = balance(map);
  const more = sum >= 0 ? map.question.target : map.question.contrast;
  return `More evidence for ${nameOf(more).toLowerCase()} than for ${nameOf(sum >= 0 ? map.question.contrast : map.question.target).toLowerCase()}.`;
}
