/** All tiles as a table, and the same as a CSV file. */

import { table } from "./charts.js";
import { h } from "./dom.js";
import { percent } from "./format.js";
import { nameOf } from "./tissues.js";
import { headline } from "./verdict.js";

/** @typedef {import("./tiles.js").Tile} Tile */

const HEAD = ["File", "Verdict", "Class", "Probability", "Prediction set", "Tumour-related", "Risk"];

/**
 * @param {Tile[]} tiles
 * @param {(tile: Tile) => void} choose called with the tile whose result is requested
 */
export function tilesTable(tiles, choose) {
  return table("Tiles of this tab", HEAD, tiles.map((tile) => row(tile, choose)));
}

/** @param {Tile} tile @param {(tile: Tile) => void} choose @returns {(string | Node)[]} */
function row(tile, choose) {
  const { name, answer, refusal } = tile;
  if (refusal) return [name, h("span", { class: "refused" }, refusal.message), "", "", "", "", ""];
  if (!answer) return [name, "waiting", "", "", "", "", ""];
  const open = h("button", { type: "button", class: "file", click: () => choose(tile) }, name);
  return [
    open,
    answer.verdict.state === "confident" ? "Confident" : headline(answer),
    nameOf(answer.prediction.code),
    percent(answer.prediction.probability),
    answer.prediction_set?.codes.join(" ") ?? "none",
    percent(answer.verdict.tumour_share),
    riskOf(answer),
  ];
}

/** @param {import("./types.js").Classification} answer */
function riskOf({ risk }) {
  if (!risk) return "none";
  return risk.level === "high" ? h("strong", {}, "high") : risk.level;
}

/** The columns of `python -m export.predict --format csv`. @param {Tile[]} tiles @param {string[]} codes */
export function csvOf(tiles, codes) {
  const head = ["file", "code", "probability", "verdict", "prediction_set", "ood_score", "in_distribution", "tumour_share", "risk"];
  const rows = tiles.map((tile) => columns(tile, codes));
  return [[...head, ...codes.map((code) => `p_${code}`), "error"], ...rows].map((cells) => cells.map(cell).join(",")).join("\r\n") + "\r\n";
}

/** @param {Tile} tile @param {string[]} codes @returns {unknown[]} */
function columns({ name, answer, refusal }, codes) {
  if (!answer) return [name, ...Array(8 + codes.length).fill(""), refusal?.code ?? ""];
  return [
    name,
    answer.prediction.code,
    answer.prediction.probability,
    answer.verdict.state,
    answer.prediction_set?.codes.join(" "),
    answer.ood_score,
    answer.in_distribution,
    answer.verdict.tumour_share,
    answer.risk?.level,
    ...codes.map((code) => answer.probabilities[code]),
    "",
  ];
}

/** @param {unknown} value */
function cell(value) {
  const text = String(value ?? "");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
