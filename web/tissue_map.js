/** The map of a region's tissues, as the server's `map.json` gives it, and its pictures. */

/** @typedef {{x: number, y: number, width: number, height: number}} Rectangle in pixels of the region */
/** @typedef {{row: number, column: number}} Place */

/**
 * @typedef {object} MapTile
 * @property {number} row
 * @property {number} column
 * @property {string} class
 * @property {number[]} probabilities in the order of the classes
 * @property {string[]} prediction_set
 * @property {boolean} in_distribution
 * @property {"confident" | "uncertain" | "unreliable"} state
 * @property {boolean} abstained
 * @property {"fit" | "doubtful" | "unfit" | null} fit of the picture; null without limits for it
 * @property {string[]} fit_reasons
 *
 * @typedef {{tiles: number, mm2: number, share: number}} Share
 *
 * @typedef {object} MapJson
 * @property {{width: number, height: number, mpp: {x: number, y: number}}} image
 * @property {{rows: number, columns: number, step: {x: number, y: number}}} grid
 * @property {{code: string, colour: string}[]} classes
 * @property {{classes: Record<string, Share>, abstained: Share, tissue: Share, glass_mm2: number, outside_mm2: number}} composition
 * @property {MapTile[]} tiles
 * @property {string} disclaimer
 */

/** What stands for the tiles without a certain class, beside the codes of classes. */
export const ABSTAINED = "abstained";

export class TissueMap {
  /** @type {Map<number, MapTile>} */
  #tiles = new Map();
  /** Pictures by what they show. @type {Map<string, HTMLCanvasElement>} */
  #pictures = new Map();
  /** @type {Map<string, [number, number, number]>} */
  #colours;

  /** @param {MapJson} json @param {ImageBitmap | null} cells one pixel for each cell, in the colour of its class */
  constructor(json, cells) {
    this.json = json;
    this.cells = cells;
    this.width = json.grid.columns * json.grid.step.x;
    this.height = json.grid.rows * json.grid.step.y;
    for (const tile of json.tiles) this.#tiles.set(this.#key(tile), tile);
    this.#colours = new Map(json.classes.map(({ code, colour }) => [code, rgb(colour)]));
  }

  /** @param {Place} place @returns {MapTile | undefined} undefined on glass */
  tile(place) {
    return this.#tiles.get(this.#key(place));
  }

  /** The colour of a class; null for other codes. @param {string} code */
  colour(code) {
    return this.json.classes.find((item) => item.code === code)?.colour ?? null;
  }

  /** A tile's place in whole pixels, as the model got it. @param {Place} place @returns {Rectangle} */
  boxOf({ row, column }) {
    const { x: width, y: height } = this.json.grid.step;
    const [left, right] = [column, column + 1].map((index) => Math.round(index * width));
    const [top, bottom] = [row, row + 1].map((index) => Math.round(index * height));
    return { x: left, y: top, width: right - left, height: bottom - top };
  }

  /** The tile at a point; null outside of the grid. @param {number} x @param {number} y @returns {Place | null} */
  placeAt(x, y) {
    const { rows, columns, step } = this.json.grid;
    const [row, column] = [Math.floor(y / step.y), Math.floor(x / step.x)];
    return row >= 0 && column >= 0 && row < rows && column < columns ? { row, column } : null;
  }

  /** The nearest place that is in the grid. @param {number} row @param {number} column @returns {Place} */
  near(row, column) {
    const { rows, columns } = this.json.grid;
    return { row: Math.min(rows - 1, Math.max(0, row)), column: Math.min(columns - 1, Math.max(0, column)) };
  }

  middle() {
    return { row: Math.floor(this.json.grid.rows / 2), column: Math.floor(this.json.grid.columns / 2) };
  }

  /** One pixel for each tile, or for each cell, in the colour of its class. @param {Set<string>} hidden @param {boolean} isFine */
  picture(hidden, isFine) {
    return this.#cached(`${isFine} ${[...hidden].sort()}`, () => (isFine && this.cells ? this.#drawCells(hidden, this.cells) : this.#drawTiles(hidden)));
  }

  /** One pixel for each tile, opaque where the model abstains. @param {Set<string>} hidden */
  uncertain(hidden) {
    return this.#cached(`uncertain ${[...hidden].sort()}`, () =>
      this.#draw((tile) => (tile.abstained && !hidden.has(ABSTAINED) && !hidden.has(tile.class) ? [0, 0, 0] : null)),
    );
  }

  /** @param {Set<string>} hidden */
  #drawTiles(hidden) {
    return this.#draw((tile) => (isHidden(tile, hidden) ? null : this.#colours.get(tile.class) ?? null));
  }

  /** @param {Set<string>} hidden @param {ImageBitmap} cells */
  #drawCells(hidden, cells) {
    const { canvas, context } = blank(cells.width, cells.height);
    context.drawImage(cells, 0, 0);
    const shown = context.getImageData(0, 0, cells.width, cells.height);
    const pixels = new Uint32Array(shown.data.buffer);
    const unwanted = new Set(this.#words(hidden));
    for (let index = 0; index < pixels.length; index += 1) if (unwanted.has(pixels[index])) pixels[index] = 0;
    context.putImageData(shown, 0, 0);
    if (hidden.has(ABSTAINED)) {
      context.globalCompositeOperation = "destination-out";
      context.imageSmoothingEnabled = false;
      context.drawImage(this.uncertain(new Set()), 0, 0, cells.width, cells.height);
    }
    return canvas;
  }

  /** The colours of some classes as the words of a picture's pixels. @param {Set<string>} codes */
  #words(codes) {
    const colours = [...codes].flatMap((code) => (this.#colours.has(code) ? [this.#colours.get(code)] : []));
    return colours.map((colour) => new Uint32Array(new Uint8Array([.../** @type {number[]} */ (colour), 255]).buffer)[0]);
  }

  /** @param {(tile: MapTile) => [number, number, number] | null} colourOf */
  #draw(colourOf) {
    const { rows, columns } = this.json.grid;
    const { canvas, context } = blank(columns, rows);
    const picture = context.createImageData(columns, rows);
    for (const [key, tile] of this.#tiles) {
      const colour = colourOf(tile);
      if (colour) picture.data.set([...colour, 255], 4 * key);
    }
    context.putImageData(picture, 0, 0);
    return canvas;
  }

  /** @param {string} key @param {() => HTMLCanvasElement} draw */
  #cached(key, draw) {
    const picture = this.#pictures.get(key) ?? draw();
    this.#pictures.set(key, picture);
    return picture;
  }

  /** @param {Place} place */
  #key({ row, column }) {
    return row * this.json.grid.columns + column;
  }
}

/** @param {MapTile} tile @param {Set<string>} hidden */
function isHidden(tile, hidden) {
  return hidden.has(tile.class) || (tile.abstained && hidden.has(ABSTAINED));
}

/** @param {number} width @param {number} height */
function blank(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  return { canvas, context };
}

/** @param {string} colour such as #8811aa @returns {[number, number, number]} */
function rgb(colour) {
  const value = parseInt(colour.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}
