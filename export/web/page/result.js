/** The selected tile: its verdict, its maps, and all nine classes. */

import { h, skeleton } from "./dom.js";
import { percent } from "./format.js";
import { legendOf } from "./legend.js";
import { methodOf } from "./methods.js";
import { probabilityCard } from "./probabilities.js";
import { nameOf } from "./tissues.js";
import { trustCard } from "./trust.js";
import { verdictCard } from "./verdict.js";
import { Viewer } from "./viewer.js";

/** @typedef {import("./types.js").Classification} Classification */
/** @typedef {import("./types.js").Question} Question */
/** @typedef {import("./tiles.js").Tile} Tile */

const METHODS = ["gradcam", "saliency"];
/** The side of the nine small maps, in pixels. */
const SMALL = 112;

/** @param {Tile} tile a classified tile */
export function resultOf(tile) {
  return new Result(tile, /** @type {Classification} */ (tile.answer)).element;
}

class Result {
  /** @param {Tile} tile @param {Classification} answer */
  constructor(tile, answer) {
    this.tile = tile;
    this.answer = answer;
    /** @type {Question} */
    this.question = { method: "gradcam", target: answer.prediction.code, contrast: "" };
    this.picture = createImageBitmap(tile.file);
    this.viewer = new Viewer(`The tile ${tile.name}`);
    this.viewer.onPoint = (point) => this.viewer.mark(point);
    this.chips = h("div", { class: "chips", role: "group", "aria-label": "Method" }, ...METHODS.map((name) => this.#chip(name)));
    this.legend = h("div", { class: "legend" });
    this.nine = h("ul", { class: "nine" });
    this.contrast = this.#contrastSelect();
    this.element = h("section", { class: "columns result", "aria-label": `Result for ${tile.name}` }, this.#pictureCard(), this.#side());
    this.picture.then((picture) => this.viewer.show(picture, null));
    this.#ask({});
  }

  #pictureCard() {
    const opacity = h("input", { type: "range", id: "opacity", min: 0, max: 1, step: 0.05, value: this.viewer.opacity, input: () => this.#setOpacity(Number(opacity.value)) });
    return h(
      "section",
      { class: "card picture", "aria-label": "The tile and its map" },
      this.viewer.element,
      this.chips,
      h("div", { class: "row" }, h("label", { for: "opacity" }, "Map opacity"), opacity, ...this.viewer.zoomButtons()),
      this.legend,
    );
  }

  #nineCard() {
    return h(
      "section",
      { class: "card", "aria-labelledby": "evidence" },
      h("h2", { id: "evidence" }, "Evidence for each class"),
      h("div", { class: "row" }, h("label", { for: "contrast" }, "compared with"), this.contrast),
      this.nine,
      h("p", { class: "hint" }, "Grad-CAM of all nine classes on one scale. Choose a class to enlarge its map."),
    );
  }

  #side() {
    return h(
      "div",
      { class: "side" },
      verdictCard(this.answer),
      probabilityCard(this.answer, (target) => this.#ask({ target })),
      this.#nineCard(),
      trustCard(this.answer),
    );
  }

  /** @param {string} name */
  #chip(name) {
    return h("button", { type: "button", class: "chip", "data-method": name, click: () => this.#ask({ method: name }) }, methodOf(name).title);
  }

  #contrastSelect() {
    const options = Object.keys(this.answer.probabilities).map((code) => h("option", { value: code }, nameOf(code)));
    const select = h("select", { id: "contrast", change: () => this.#ask({ contrast: select.value }) }, h("option", { value: "" }, "nothing"), ...options);
    return select;
  }

  /** Change the selected map and show it. @param {Partial<Question>} change */
  async #ask(change) {
    const asked = { ...this.question, ...change };
    // A class has no evidence against itself.
    if (asked.contrast === asked.target) asked.contrast = "";
    const isContrastNew = asked.contrast !== this.question.contrast || !this.nine.childElementCount;
    this.question = asked;
    this.contrast.value = asked.contrast;
    for (const chip of this.chips.children) chip.setAttribute("aria-pressed", String(chip.getAttribute("data-method") === asked.method));
    if (isContrastNew) await this.#showNine();
    this.#markChosen();
    await this.#showMap(asked);
  }

  /** @param {Question} asked */
  async #showMap(asked) {
    this.viewer.showMap(null);
    this.legend.replaceChildren(skeleton(1));
    const parts = await this.tile.map(asked).then(
      (map) => ({ map, legend: [...legendOf(map), h("p", { class: "hint" }, methodOf(asked.method).meaning)] }),
      (error) => ({ map: null, legend: [h("p", {}, `This map could not be computed. ${error.message}`)] }),
    );
    if (asked !== this.question) return;
    this.viewer.showMap(parts.map);
    this.legend.replaceChildren(...parts.legend);
  }

  async #showNine() {
    const picture = await this.picture;
    const maps = this.tile.activationMaps(this.question.contrast, SMALL);
    this.nine.replaceChildren(...maps.map((map) => h("li", {}, this.#small(map, picture))));
  }

  /** @param {import("./types.js").EvidenceMap} map @param {ImageBitmap} picture */
  #small(map, picture) {
    const { target } = map.question;
    const canvas = h("canvas", { width: SMALL, height: SMALL, "aria-hidden": "true" });
    const context = canvas.getContext("2d");
    context?.drawImage(picture, 0, 0, SMALL, SMALL);
    context?.drawImage(map.picture, 0, 0);
    const choose = () => this.#ask({ method: "gradcam", target });
    return h(
      "button",
      { type: "button", "data-code": target, click: choose },
      canvas,
      h("span", {}, nameOf(target)),
      h("span", { class: "hint" }, percent(this.answer.probabilities[target])),
    );
  }

  #markChosen() {
    for (const button of this.nine.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.dataset.code === this.question.target));
    }
  }

  /** @param {number} opacity */
  #setOpacity(opacity) {
    this.viewer.opacity = opacity;
    this.viewer.draw();
  }
}
