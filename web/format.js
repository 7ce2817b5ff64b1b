/** Formats numbers and lists. */

import { nameOf } from "./tissues.js";

/** A share as a percentage: without decimals from 10 on, never rounded to 0 or 100. @param {number} share */
export function percent(share) {
  const value = 100 * share;
  if (value < 0.1) return "under\u00a00.1\u00a0%";
  if (value > 99.9 && value < 100) return "over\u00a099.9\u00a0%";
  return `${value < 9.95 || (value > 99 && value < 100) ? value.toFixed(1) : value.toFixed(0)}\u00a0%`;
}

/** A measured share with one decimal, for tables and headlines. @param {number} share */
export function exactPercent(share) {
  return `${(100 * share).toFixed(1)}\u00a0%`;
}

/** A number with two significant digits and its sign. @param {number} value */
export function signed(value) {
  return `${value > 0 ? "+" : ""}${Number(value.toPrecision(2))}`;
}

/** "a", "a or b", "a, b or c". @param {string[]} words @param {string} [last] */
export function list(words, last = "or") {
  if (words.length < 2) return words.join("");
  return `${words.slice(0, -1).join(", ")} ${last} ${words[words.length - 1]}`;
}

/** @param {string} text */
export function capitalised(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Class names as text: "tumour stroma or mucus". @param {string[]} codes */
export function classes(codes) {
  return list(codes.map((code) => nameOf(code).toLowerCase()));
}

/** @param {number} bytes */
export function megabytes(bytes) {
  return `${(bytes / 2 ** 20).toFixed(bytes < 2 ** 20 ? 1 : 0)} MB`;
}
