/** A region or slide that can be moved and enlarged (OpenSeadragon), with the map of its tissues on it. */

import { fetchBlob } from "/api.js";
import { h } from "/dom.js";

/** @typedef {import("/types.js").Shape} Shape */
/** @typedef {import("/tissue_map.js").TissueMap} TissueMap */
/** @typedef {{row: number, column: number}} Place a tile of the map */

const ZOOM = 1.6;
const ARROWS = new Map([
  ["ArrowLeft", [0, -1]],
  ["ArrowRight", [0, 1]],
  ["ArrowUp", [-1, 0]],
  ["ArrowDown", [1, 0]],
]);
/** Distance of the lines that mark uncertain cells, in pixels of the screen. */
const HATCH = 7;
const OPTIONS = {
  drawer: "canvas",
  showNavigationControl: false,
  visibilityRatio: 0.5,
  minZoomImageRatio: 0.7,
  maxZoomPixelRatio: 4,
  animationTime: 0.2,
  zoomPerClick: 1,
  gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
  tileRetryMax: 5,
  tileRetryDelay: 1000,
};

/** OpenSeadragon, or null if the server does not have it. */
async function load() {
  // OpenSeadragon adds a style element unless there is one with this attribute. The content policy would refuse it.
  if (!document.querySelector("[data-openseadragon-mobile-css]")) {
    const substitute = document.createElementNS("", "style");
    substitute.setAttribute("data-openseadragon-mobile-css", "true");
    document.head.append(substitute);
  }
  // Not a literal, because the module is not one of the page's own.
  const address = "/openseadragon.js";
  return import(address).then(
    (module) => module.default,
    () => null,
  );
}

export class SlideViewer {
  /** Called with a tile that was clicked or reached with the arrow keys. @type {(place: Place, isChosen: boolean) => void} */
  onPlace = () => {};
  opacity = 0.5;
  isMapHidden = false;
  /** Whether cells are drawn instead of tiles. */
  isFine = false;
  /** @type {TissueMap | null} */
  map = null;
  /** Codes of classes that are not drawn. @type {Set<string>} */
  hidden = new Set();
  /** @type {Place | null} */
  place = null;
  /** @type {any} */
  #viewer = null;
  #overlay = h("canvas", { class: "overlay", "aria-hidden": "true" });
  #hatched = document.createElement("canvas");

  constructor() {
    this.element = h("div", { class: "slide", tabindex: "-1" });
  }

  /** Show a picture; returns false if the server has no OpenSeadragon. @param {string} address @param {Shape} shape */
  async open(address, shape) {
    const OpenSeadragon = await load();
    if (!OpenSeadragon) return false;
    this.close();
    const source = new OpenSeadragon.TileSource({
      width: shape.width,
      height: shape.height,
      tileSize: shape.tile_size,
      tileOverlap: 0,
      minLevel: shape.min_level,
      maxLevel: shape.max_level,
    });
    source.getTileUrl = (/** @type {number[]} */ ...[level, x, y]) => `${address}/${level}/${x}_${y}.jpeg`;
    source.downloadTileStart = download;
    source.downloadTileAbort = (/** @type {any} */ job) => job.userData.aborting?.abort();
    this.#viewer = new OpenSeadragon.Viewer({ ...OPTIONS, element: this.element });
    withoutMarkup(this.#viewer.overlaysContainer);
    this.#viewer.open(source);
    const { canvas } = this.#viewer;
    canvas.append(this.#overlay);
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", "The region and its map: arrow keys move between tiles, Enter explains one, plus and minus zoom");
    this.#viewer.addHandler("update-viewport", () => this.draw());
    this.#viewer.addHandler("canvas-click", (/** @type {any} */ event) => event.quick && this.#click(event.position));
    this.#viewer.addHandler("canvas-key", (/** @type {any} */ event) => this.#key(event));
    return true;
  }

  close() {
    this.#viewer?.destroy();
    this.#viewer = null;
  }

  /** @param {TissueMap} map */
  showMap(map) {
    this.map = map;
    this.draw();
  }

  /** @param {Place | null} place */
  select(place) {
    this.place = place;
    this.draw();
  }

  zoomButtons() {
    const button = (/** @type {string} */ label, /** @type {string} */ sign, /** @type {() => void} */ click) =>
      h("button", { type: "button", class: "icon", "aria-label": label, click }, sign);
    const zoom = (/** @type {number} */ factor) => () => this.#viewer?.viewport.zoomBy(factor).applyConstraints();
    return [
      button("Zoom in", "+", zoom(ZOOM)),
      button("Zoom out", "−", zoom(1 / ZOOM)),
      button("Whole region", "⤢", () => this.#viewer?.viewport.goHome()),
    ];
  }

  /** Draw the map at the place and size that the picture has now. */
  draw() {
    const viewport = this.#viewer?.viewport;
    if (!viewport || !this.#viewer.world.getItemCount()) return;
    const scale = window.devicePixelRatio;
    const { clientWidth, clientHeight } = this.#viewer.canvas;
    fit(this.#overlay, Math.round(clientWidth * scale), Math.round(clientHeight * scale));
    const context = this.#overlay.getContext("2d");
    if (!context) return;
    context.clearRect(0, 0, this.#overlay.width, this.#overlay.height);
    context.scale(scale, scale);
    const { map } = this;
    if (!map) return;
    const box = this.#box();
    const [width, height] = [map.width * box.scale, map.height * box.scale];
    if (!this.isMapHidden) {
      context.imageSmoothingEnabled = false;
      context.globalAlpha = this.opacity;
      context.drawImage(map.picture(this.hidden, this.isFine), box.x, box.y, width, height);
      context.globalAlpha = 1;
      context.drawImage(this.#hatch(map, box, width, height), 0, 0, clientWidth, clientHeight);
    }
    if (this.place) outline(context, map.boxOf(this.place), box);
  }

  /** Lines over the cells whose class is uncertain, at the same distance at every zoom. */
  #hatch(/** @type {TissueMap} */ map, /** @type {Box} */ box, /** @type {number} */ width, /** @type {number} */ height) {
    const { width: full, height: high } = this.#overlay;
    fit(this.#hatched, full, high);
    const context = /** @type {CanvasRenderingContext2D} */ (this.#hatched.getContext("2d"));
    context.reset();
    context.scale(window.devicePixelRatio, window.devicePixelRatio);
    context.imageSmoothingEnabled = false;
    context.drawImage(map.uncertain(this.hidden), box.x, box.y, width, height);
    context.globalCompositeOperation = "source-in";
    context.fillStyle = /** @type {CanvasPattern} */ (context.createPattern(lines(), "repeat"));
    context.fillRect(0, 0, full, high);
    return this.#hatched;
  }

  /** Where the picture's corner is in the viewer, and pixels of the screen for each of the picture's. @returns {Box} */
  #box() {
    const item = this.#viewer.world.getItemAt(0);
    const { x, y, width } = this.#viewer.viewport.viewportToViewerElementRectangle(item.getBounds(true));
    return { x, y, scale: width / item.source.width };
  }

  /** @param {{x: number, y: number}} point */
  #click({ x, y }) {
    const box = this.#box();
    const place = this.map?.placeAt((x - box.x) / box.scale, (y - box.y) / box.scale);
    if (place) this.onPlace(place, true);
  }

  /** @param {any} event */
  #key(event) {
    const { key } = event.originalEvent;
    const step = ARROWS.get(key);
    if (!this.map || (!step && key !== "Enter")) return;
    event.preventDefaultAction = true;
    event.originalEvent.preventDefault();
    if (!step) return this.place && this.onPlace(this.place, true);
    const { row, column } = this.place ?? this.map.middle();
    const place = this.place ? this.map.near(row + step[0], column + step[1]) : { row, column };
    this.onPlace(place, false);
    this.#keepInView(this.map.boxOf(place));
  }

  /** Move the picture if a tile is outside of the view. @param {import("/tissue_map.js").Rectangle} tile */
  #keepInView(tile) {
    const { x, y, scale } = this.#box();
    const [left, top] = [x + scale * (tile.x + tile.width / 2), y + scale * (tile.y + tile.height / 2)];
    const { clientWidth, clientHeight } = this.element;
    if (left > 0 && top > 0 && left < clientWidth && top < clientHeight) return;
    const { viewport } = this.#viewer;
    const centre = viewport.getCenter();
    const size = viewport.getBounds();
    centre.x += ((left - clientWidth / 2) / clientWidth) * size.width;
    centre.y += ((top - clientHeight / 2) / clientHeight) * size.height;
    viewport.panTo(centre);
  }
}

/** @typedef {{x: number, y: number, scale: number}} Box */

/** Load one tile, with the visitor's token. @param {any} job */
async function download(job) {
  job.userData.aborting = new AbortController();
  try {
    const blob = await fetchBlob(job.src, job.userData.aborting.signal);
    job.finish(await createImageBitmap(blob), null, "imageBitmap");
  } catch (error) {
    job.fail(String(error), null);
  }
}

/** OpenSeadragon empties this element by `innerHTML`, which the content policy refuses. @param {HTMLElement} element */
function withoutMarkup(element) {
  Object.defineProperty(element, "innerHTML", { set: () => element.replaceChildren() });
}

/** @param {HTMLCanvasElement} canvas @param {number} width @param {number} height */
function fit(canvas, width, height) {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
}

/** One piece of a pattern of slanted lines. */
function lines() {
  const piece = new OffscreenCanvas(HATCH, HATCH);
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (piece.getContext("2d"));
  for (const [colour, width] of /** @type {[string, number][]} */ ([["#fff", 3], ["#000", 1.2]])) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.beginPath();
    for (const shift of [-HATCH, 0, HATCH]) {
      context.moveTo(shift - 1, HATCH + 1);
      context.lineTo(shift + HATCH + 1, -1);
    }
    context.stroke();
  }
  return piece;
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {import("/tissue_map.js").Rectangle} tile
 * @param {Box} box
 */
function outline(context, tile, box) {
  const [x, y] = [box.x + tile.x * box.scale, box.y + tile.y * box.scale];
  for (const [colour, width] of /** @type {[string, number][]} */ ([["#fff", 5], ["#000", 2]])) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.strokeRect(x, y, tile.width * box.scale, tile.height * box.scale);
  }
}
