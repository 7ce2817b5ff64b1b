/** Reads the values of maps from the server's pictures, and compares maps. */

import { pictureOf, pixelsOf } from "./pictures.js";

/** @typedef {import("./types.js").EvidenceMap} EvidenceMap */
/** @typedef {import("./types.js").ExplanationJson} ExplanationJson */

/** Side of the grid on which two maps are compared. */
const GRID = 14;
const KNOWN = ["method", "target", "contrast", "rendering", "heatmap", "overlay", "unit", "cached"];

/**
 * A map of a response. The picture's opacity is the value; blue pixels are negative.
 * @param {ExplanationJson} json
 * @returns {Promise<EvidenceMap>}
 */
export async function readMap(json) {
  if (json.skipped) throw new Error(json.skipped.message);
  const picture = await pictureOf(json.heatmap, "image/png");
  const signed = json.rendering.shows === "signed";
  const [, high] = json.rendering.range;
  const pixels = pixelsOf(picture);
  const values = new Float32Array(pixels.length / 4);
  for (let index = 0; index < values.length; index += 1) {
    const isAgainst = pixels[4 * index + 2] > pixels[4 * index];
    values[index] = ((isAgainst ? -high : high) * pixels[4 * index + 3]) / 255;
  }
  return {
    question: { method: json.method, target: json.target.code, contrast: json.contrast?.code ?? "" },
    picture,
    values,
    width: picture.width,
    height: picture.height,
    high,
    signed,
    unit: json.unit,
    percentile: json.rendering.percentile,
    sigma: json.rendering.sigma,
    details: Object.fromEntries(Object.entries(json).filter(([name]) => !KNOWN.includes(name))),
  };
}

/** The value at a point, both in [0, 1]. @param {EvidenceMap} map @param {number} x @param {number} y */
export function valueAt(map, x, y) {
  const column = Math.min(map.width - 1, Math.floor(x * map.width));
  const row = Math.min(map.height - 1, Math.floor(y * map.height));
  return map.values[row * map.width + column];
}

/** Whether evidence for the target outweighs evidence for the contrast: the sum of both. @param {EvidenceMap} map */
export function balance(map) {
  let sum = 0;
  for (const value of map.values) sum += value;
  return sum;
}

/**
 * Spearman's rank correlation of two maps, on a coarse grid.
 * @param {EvidenceMap} one
 * @param {EvidenceMap} other
 */
export function agreement(one, other) {
  const [a, b] = [ranks(coarse(one)), ranks(coarse(other))];
  const mean = (a.length - 1) / 2;
  let both = 0;
  let squaresA = 0;
  let squaresB = 0;
  for (let index = 0; index < a.length; index += 1) {
    both += (a[index] - mean) * (b[index] - mean);
    squaresA += (a[index] - mean) ** 2;
    squaresB += (b[index] - mean) ** 2;
  }
  return squaresA && squaresB ? both / Math.sqrt(squaresA * squaresB) : 0;
}

/** Means over the cells of a grid. @param {EvidenceMap} map */
function coarse(map) {
  const sums = new Float64Array(GRID * GRID);
  const counts = new Float64Array(GRID * GRID);
  for (let row = 0; row < map.height; row += 1) {
    for (let column = 0; column < map.width; column += 1) {
      const cell = Math.floor((row * GRID) / map.height) * GRID + Math.floor((column * GRID) / map.width);
      sums[cell] += map.values[row * map.width + column];
      counts[cell] += 1;
    }
  }
  return sums.map((sum, cell) => sum / Math.max(1, counts[cell]));
}

/** Ranks from 0; equal values get their mean rank. @param {Float64Array} values */
function ranks(values) {
  const order = [...values.keys()].sort((a, b) => values[a] - values[b]);
  const ranks = new Float64Array(values.length);
  for (let start = 0; start < order.length; ) {
    let end = start;
    while (end < order.length && values[order[end]] === values[order[start]]) end += 1;
    for (let index = start; index < end; index += 1) ranks[order[index]] = (start + end - 1) / 2;
    start = end;
  }
  return ranks;
}
