/** A model's maps to pictures in the colours of evidence, drawn as the server draws them (`handler/api/render.py`). */

/** @typedef {import("./types.js").EvidenceMap} EvidenceMap */
/** @typedef {import("./types.js").Question} Question */
/** @typedef {{values: Float32Array, side: number}} Grid a square map, row by row */
/** @typedef {{question: Question, unit: string, display: "positive" | "signed" | "magnitude", sigma?: number, percentile?: number}} Drawing */

/** Orange is evidence for the class, blue evidence for the class that it is compared with. */
const [FOR, AGAINST] = [[230, 81, 0], [21, 101, 192]];
/** Standard deviations after which the Gaussian ends. */
const TRUNCATE = 4;

/**
 * The map of a grid, with opacity for strength.
 * @param {Grid} grid signed values
 * @param {Drawing} drawing
 * @param {{size?: number, high?: number}} [scale] the picture's side; the value with the full colour, if it is not the map's own
 * @returns {EvidenceMap}
 */
export function drawMap(grid, { question, unit, display, sigma = 0, percentile = 100 }, { size = 448, high } = {}) {
  const strength = smooth({ side: grid.side, values: grid.values.map(STRENGTHS[display]) }, sigma);
  const top = high ?? quantile(strength.values.map(Math.abs), percentile / 100);
  const values = enlarge(strength, size);
  return {
    question,
    picture: paint(values, size, top),
    values,
    width: size,
    height: size,
    high: top,
    signed: display === "signed",
    unit,
    percentile,
    sigma,
    details: {},
  };
}

const STRENGTHS = {
  positive: (/** @type {number} */ value) => Math.max(value, 0),
  signed: (/** @type {number} */ value) => value,
  magnitude: Math.abs,
};

/** The part of several maps `[N, side, side]` at an index. @param {Float32Array} maps @param {number} side @param {number} index @returns {Grid} */
export function gridAt(maps, side, index) {
  return { side, values: maps.slice(index * side * side, (index + 1) * side * side) };
}

/** @param {Grid} one @param {Grid} other @returns {Grid} */
export function difference(one, other) {
  return { side: one.side, values: one.values.map((value, index) => value - other.values[index]) };
}

/** The sum over the channels of `[3, side, side]`, of magnitudes or of signed values. @param {Float32Array} maps @param {boolean} isSigned @returns {Grid} */
export function overChannels(maps, isSigned) {
  const cells = maps.length / 3;
  const values = new Float32Array(cells);
  for (let index = 0; index < maps.length; index += 1) values[index % cells] += isSigned ? maps[index] : Math.abs(maps[index]);
  return { side: Math.round(Math.sqrt(cells)), values };
}

/** The highest strength of several maps, for a scale in common. @param {Grid[]} grids @param {boolean} isSigned */
export function highest(grids, isSigned) {
  return Math.max(...grids.flatMap(({ values }) => [...values].map(isSigned ? Math.abs : Number)));
}

/** Linear interpolation between cells, whose centres are at half integers. @param {Grid} grid @param {number} size */
function enlarge({ values, side }, size) {
  const places = Array.from({ length: size }, (_, index) => {
    const place = Math.min(side - 1, Math.max(0, ((index + 0.5) * side) / size - 0.5));
    const first = Math.min(Math.floor(place), Math.max(0, side - 2));
    return { first, second: Math.min(first + 1, side - 1), share: place - first };
  });
  const result = new Float32Array(size * size);
  places.forEach((row, y) => {
    places.forEach((column, x) => {
      const at = (/** @type {number} */ line) =>
        values[line * side + column.first] * (1 - column.share) + values[line * side + column.second] * column.share;
      result[y * size + x] = at(row.first) * (1 - row.share) + at(row.second) * row.share;
    });
  });
  return result;
}

/** A Gaussian filter; beyond its edges the map is mirrored. @param {Grid} grid @param {number} sigma @returns {Grid} */
function smooth(grid, sigma) {
  if (!sigma) return grid;
  const radius = Math.floor(TRUNCATE * sigma + 0.5);
  const weights = Array.from({ length: 2 * radius + 1 }, (_, index) => Math.exp(-0.5 * ((index - radius) / sigma) ** 2));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const kernel = weights.map((weight) => weight / total);
  // Each pass filters rows and swaps rows and columns, so that the second one filters the columns.
  return filterRows(filterRows(grid, kernel), kernel);
}

/** @param {Grid} grid @param {number[]} kernel @returns {Grid} the result, transposed */
function filterRows({ values, side }, kernel) {
  const radius = (kernel.length - 1) / 2;
  const mirrored = (/** @type {number} */ index) => (index < 0 ? -1 - index : index >= side ? 2 * side - 1 - index : index);
  const result = new Float32Array(values.length);
  for (let row = 0; row < side; row += 1) {
    for (let column = 0; column < side; column += 1) {
      let sum = 0;
      for (let step = -radius; step <= radius; step += 1) sum += kernel[step + radius] * values[row * side + mirrored(column + step)];
      result[column * side + row] = sum;
    }
  }
  return { values: result, side };
}

/** @param {Float32Array} values @param {number} share */
function quantile(values, share) {
  const sorted = values.slice().sort();
  const place = share * (sorted.length - 1);
  const below = Math.floor(place);
  return sorted[below] + (place - below) * (sorted[Math.min(below + 1, sorted.length - 1)] - sorted[below]);
}

/** @param {Float32Array} values @param {number} size @param {number} high */
function paint(values, size, high) {
  const canvas = new OffscreenCanvas(size, size);
  const context = canvas.getContext("2d");
  if (!context) throw new Error("this browser draws no pictures");
  const pixels = new ImageData(size, size);
  values.forEach((value, index) => {
    const opacity = high > 0 ? Math.min(255, Math.round((255 * Math.abs(value)) / high)) : 0;
    pixels.data.set([...(value < 0 ? AGAINST : FOR), opacity], 4 * index);
  });
  context.putImageData(pixels, 0, 0);
  return canvas.transferToImageBitmap();
}
