/** Shows a tile with a map: zoom by wheel, pinch or buttons, and the value under the pointer. */

import { h } from "./dom.js";
import { valueAt } from "./evidence.js";
import { signed } from "./format.js";

/** @typedef {import("./types.js").EvidenceMap} EvidenceMap */
/** @typedef {{x: number, y: number}} Point in the tile, both in [0, 1] */

const MAX_ZOOM = 16;
const STEP = 1.25;

export class Viewer {
  /** Called with the point under the pointer, null if there is none. @type {(point: Point | null) => void} */
  onPoint = () => {};
  opacity = 0.8;
  isMapHidden = false;
  isModelView = false;
  /** @type {EvidenceMap | null} */
  map = null;
  /** @type {ImageBitmap | null} */
  #picture = null;
  /** @type {ImageBitmap | null} */
  #canonical = null;
  #zoom = 1;
  /** The tile's point at the centre of the view. */
  #centre = { x: 0.5, y: 0.5 };
  /** @type {Point | null} */
  #point = null;
  /** The last position of each pressed pointer, in pixels of the page. @type {Map<number, Point>} */
  #pointers = new Map();

  /** @param {string} label */
  constructor(label) {
    this.canvas = h("canvas", { role: "img", "aria-label": label, width: 448, height: 448 });
    this.readout = h("output", { class: "readout" });
    this.element = h("div", { class: "viewer" }, this.canvas, this.readout);
    this.canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    this.canvas.addEventListener("pointerdown", (event) => this.#down(event));
    this.canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) {
      this.canvas.addEventListener(name, (event) => this.#pointers.delete(/** @type {PointerEvent} */ (event).pointerId));
    }
    this.canvas.addEventListener("pointerleave", () => this.onPoint(null));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  /** Zoom buttons, for devices without a wheel. */
  zoomButtons() {
    const button = (/** @type {string} */ label, /** @type {string} */ sign, /** @type {number} */ factor) =>
      h("button", { type: "button", class: "icon", "aria-label": label, click: () => this.zoomBy(factor) }, sign);
    return [button("Zoom in", "+", STEP ** 3), button("Zoom out", "−", STEP ** -3)];
  }

  /** @param {ImageBitmap | null} picture @param {ImageBitmap | null} canonical the tile as the model sees it */
  show(picture, canonical) {
    this.#picture = picture;
    this.#canonical = canonical;
    this.#zoom = 1;
    this.draw();
  }

  /** @param {EvidenceMap | null} map */
  showMap(map) {
    this.map = map;
    if (map) this.canvas.dataset.map = map.question.method;
    else delete this.canvas.dataset.map;
    this.draw();
  }

  /** Mark a point and show the map's value there. @param {Point | null} point */
  mark(point) {
    this.#point = point;
    this.readout.textContent = point && this.map ? `${signed(valueAt(this.map, point.x, point.y))} ${this.map.unit}` : "";
    this.draw();
  }

  /** Enlarge by a factor, around a point of the view. @param {number} factor @param {Point} [around] */
  zoomBy(factor, around = { x: 0.5, y: 0.5 }) {
    const before = this.#zoom;
    this.#zoom = Math.min(MAX_ZOOM, Math.max(1, before * factor));
    this.#moveBy((around.x - 0.5) * (1 / before - 1 / this.#zoom), (around.y - 0.5) * (1 / before - 1 / this.#zoom));
  }

  draw() {
    const { canvas } = this;
    const picture = (this.isModelView && this.#canonical) || this.#picture;
    const shape = this.#picture ?? this.#canonical;
    if (shape) canvas.style.aspectRatio = `${shape.width} / ${shape.height}`;
    const scale = window.devicePixelRatio;
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * scale));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * scale));
    const context = canvas.getContext("2d");
    if (!context || !picture) return;
    const [width, height] = [canvas.width * this.#zoom, canvas.height * this.#zoom];
    const [left, top] = [canvas.width / 2 - this.#centre.x * width, canvas.height / 2 - this.#centre.y * height];
    context.imageSmoothingEnabled = !this.isModelView && width < 8 * picture.width;
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, left, top, width, height);
    if (this.map && !this.isMapHidden) {
      context.globalAlpha = this.opacity;
      context.imageSmoothingEnabled = true;
      context.drawImage(this.map.picture, left, top, width, height);
      context.globalAlpha = 1;
    }
    if (this.#point) drawCross(context, left + this.#point.x * width, top + this.#point.y * height, scale);
  }

  /** @param {WheelEvent} event */
  #wheel(event) {
    event.preventDefault();
    this.zoomBy(event.deltaY < 0 ? STEP : 1 / STEP, this.#viewPoint(event));
  }

  /** @param {PointerEvent} event */
  #down(event) {
    this.#pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (this.#zoom > 1 || this.#pointers.size > 1) this.canvas.setPointerCapture(event.pointerId);
  }

  /** @param {PointerEvent} event */
  #move(event) {
    const last = this.#pointers.get(event.pointerId);
    if (last) {
      const now = { x: event.clientX, y: event.clientY };
      const others = [...this.#pointers].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
      if (others.length) this.zoomBy(distance(now, others[0]) / Math.max(1, distance(last, others[0])));
      else {
        const size = this.canvas.getBoundingClientRect();
        this.#moveBy((last.x - now.x) / size.width / this.#zoom, (last.y - now.y) / size.height / this.#zoom);
      }
      this.#pointers.set(event.pointerId, now);
    }
    const view = this.#viewPoint(event);
    this.onPoint({
      x: clamp(this.#centre.x + (view.x - 0.5) / this.#zoom, 0, 0.9999),
      y: clamp(this.#centre.y + (view.y - 0.5) / this.#zoom, 0, 0.9999),
    });
  }

  /** @param {number} x @param {number} y */
  #moveBy(x, y) {
    const margin = 0.5 / this.#zoom;
    this.#centre = {
      x: clamp(this.#centre.x + x, margin, 1 - margin),
      y: clamp(this.#centre.y + y, margin, 1 - margin),
    };
    // At full size a finger scrolls the page; enlarged, it moves the tile.
    this.canvas.style.touchAction = this.#zoom > 1 ? "none" : "pan-y";
    this.draw();
  }

  /** @param {MouseEvent} event @returns {Point} */
  #viewPoint(event) {
    const size = this.canvas.getBoundingClientRect();
    return { x: (event.clientX - size.left) / size.width, y: (event.clientY - size.top) / size.height };
  }
}

/**
 * The tile with a map on it as one picture.
 * @param {ImageBitmap} picture
 * @param {EvidenceMap} map
 * @param {number} opacity
 */
export function flatten(picture, map, opacity) {
  const canvas = new OffscreenCanvas(map.width, map.height);
  const context = canvas.getContext("2d");
  context?.drawImage(picture, 0, 0, map.width, map.height);
  if (context) context.globalAlpha = opacity;
  context?.drawImage(map.picture, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number} x
 * @param {number} y
 * @param {number} scale
 */
function drawCross(context, x, y, scale) {
  for (const [width, colour] of /** @type {[number, string][]} */ ([[3, "#fff"], [1, "#000"]])) {
    context.lineWidth = width * scale;
    context.strokeStyle = colour;
    context.beginPath();
    context.moveTo(x - 8 * scale, y);
    context.lineTo(x + 8 * scale, y);
    context.moveTo(x, y - 8 * scale);
    context.lineTo(x, y + 8 * scale);
    context.stroke();
  }
}

/** @param {Point} one @param {Point} other */
function distance(one, other) {
  return Math.hypot(one.x - other.x, one.y - other.y);
}

/** @param {number} value @param {number} low @param {number} high */
function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}
