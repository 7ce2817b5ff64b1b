/** SVG charts in the colours of the page's theme, with the numbers for screen readers. */

import { h, svg } from "./dom.js";

/** @typedef {{label: string, value: number, low: number, high: number, note: string}} Dot */
/** @typedef {{x: number, y: number, low: number, high: number, note: string}} Point */

/**
 * One row for each share with its interval, on a scale from 0 to 1.
 * @param {string} label what the chart shows
 * @param {Dot[]} dots
 */
export function dotPlot(label, dots) {
  const rows = dots.map(({ label: name, value, low, high, note }) =>
    chartRow(name, note, [
      ...[0, 25, 50, 75, 100].map((tick) => svg("line", { class: "grid", x1: tick, x2: tick, y1: 0, y2: 20 })),
      svg("line", { class: "interval", x1: 100 * low, x2: 100 * high, y1: 10, y2: 10 }),
      // A line of zero length with round ends stays round if the row is stretched.
      svg("line", { class: "dot", x1: 100 * value, x2: 100 * value, y1: 10, y2: 10 }),
    ]),
  );
  const scale = h("span", { class: "scale-of-row" }, h("span", {}, "0 %"), h("span", {}, "50 %"), h("span", {}, "100 %"));
  return h("ul", { class: "rows", "aria-label": label }, ...rows, h("li", { "aria-hidden": "true" }, h("span"), scale, h("span")));
}

/**
 * Two shares for each name, one below the other.
 * @param {string} label
 * @param {{label: string, one: number, other: number, note: string}[]} rows
 */
export function pairedBars(label, rows) {
  const most = Math.max(...rows.flatMap(({ one, other }) => [one, other]), 0.01);
  const items = rows.map(({ label: name, one, other, note }) =>
    chartRow(name, note, [
      svg("rect", { class: "one", x: 0, y: 2, width: (100 * one) / most, height: 9 }),
      svg("rect", { class: "other", x: 0, y: 12, width: (100 * other) / most, height: 6 }),
    ]),
  );
  return h("ul", { class: "rows", "aria-label": label }, ...items);
}

/**
 * @param {string} name
 * @param {string} note
 * @param {Node[]} marks in a box of 100 by 20, which is as wide as the row allows
 */
function chartRow(name, note, marks) {
  const box = svg("svg", { viewBox: "0 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true" }, ...marks);
  return h("li", {}, h("span", { class: "name" }, name), box, h("span", { class: "hint" }, note));
}

/**
 * Shares against shares, with intervals and the diagonal on which they are equal.
 * @param {string} label
 * @param {Point[]} points
 * @param {string} across
 * @param {string} up
 */
export function calibrationPlot(label, points, across, up) {
  const [size, left] = [340, 54];
  const x = (/** @type {number} */ share) => left + share * size;
  const y = (/** @type {number} */ share) => 12 + (1 - share) * size;
  return svg(
    "svg",
    { class: "chart square", viewBox: `0 0 ${size + left + 20} ${size + 58}`, role: "img", "aria-label": label },
    ...[0, 0.25, 0.5, 0.75, 1].flatMap((tick) => [
      svg("line", { class: "grid", x1: x(0), x2: x(1), y1: y(tick), y2: y(tick) }),
      svg("text", { class: "tick", x: left - 8, y: y(tick) + 5, "text-anchor": "end" }, `${100 * tick} %`),
      svg("text", { class: "tick", x: x(tick), y: y(0) + 18, "text-anchor": "middle" }, `${100 * tick} %`),
    ]),
    svg("line", { class: "diagonal", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }),
    ...points.flatMap((point) => [
      svg("line", { class: "interval", x1: x(point.x), x2: x(point.x), y1: y(point.low), y2: y(point.high) }),
      svg("circle", { class: "dot", cx: x(point.x), cy: y(point.y), r: 5 }, svg("title", {}, point.note)),
    ]),
    svg("text", { class: "tick", x: x(0.5), y: y(0) + 38, "text-anchor": "middle" }, `${across}; up: ${up}`),
  );
}

/**
 * A small line over named steps, each with its interval.
 * @param {string} label
 * @param {{label: string, value: number, low: number, high: number}[]} steps
 * @param {number} reference a level to compare with
 */
export function smallLine(label, steps, reference) {
  const [width, height, bottom] = [260, 110, 22];
  const x = (/** @type {number} */ index) => 24 + (index * (width - 48)) / Math.max(1, steps.length - 1);
  const y = (/** @type {number} */ share) => 6 + (1 - share) * (height - bottom - 6);
  return svg(
    "svg",
    { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    svg("line", { class: "diagonal", x1: 0, x2: width, y1: y(reference), y2: y(reference) }),
    svg("line", { class: "grid", x1: 0, x2: width, y1: y(0), y2: y(0) }),
    svg("polyline", { class: "line", points: steps.map(({ value }, index) => `${x(index)},${y(value)}`).join(" ") }),
    ...steps.flatMap(({ label: name, value, low, high }, index) => [
      svg("line", { class: "interval", x1: x(index), x2: x(index), y1: y(low), y2: y(high) }),
      svg("circle", { class: "dot", cx: x(index), cy: y(value), r: 4 }),
      svg("text", { class: "tick", x: x(index), y: height - 5, "text-anchor": "middle" }, name),
    ]),
  );
}

/**
 * A table that scrolls within itself if it is too wide.
 * @param {string} caption
 * @param {string[]} head
 * @param {(string | Node)[][]} rows the first cell of each is its heading
 */
export function table(caption, head, rows) {
  return h(
    "div",
    { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" },
    h(
      "table",
      {},
      h("caption", {}, caption),
      h("thead", {}, h("tr", {}, ...head.map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, ...rows.map(([first, ...cells]) => h("tr", {}, h("th", { scope: "row" }, first), ...cells.map((cell) => h("td", {}, cell))))),
    ),
  );
}

/** Wilson's 95 % interval of a share. @param {number} share @param {number} count @returns {[number, number]} */
export function wilson(share, count) {
  const z = 1.96;
  const middle = share + z ** 2 / (2 * count);
  const half = z * Math.sqrt((share * (1 - share)) / count + z ** 2 / (4 * count ** 2));
  const scale = 1 + z ** 2 / count;
  return [(middle - half) / scale, (middle + half) / scale];
}
