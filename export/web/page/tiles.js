/** The tiles of this tab and their answers, computed one after another. */

import { answerOf } from "./answer.js";
import { ModelError } from "./client.js";
import { difference, drawMap, gridAt, highest, overChannels } from "./maps.js";

/** @typedef {import("./types.js").Classification} Classification */
/** @typedef {import("./types.js").EvidenceMap} EvidenceMap */
/** @typedef {import("./types.js").Question} Question */
/** @typedef {import("./answer.js").ModelData} ModelData */
/** @typedef {import("./client.js").Client} Client */
/** @typedef {import("./client.js").Classified} Classified */
/** @typedef {import("./drop.js").NamedFile} NamedFile */
/** @typedef {import("./maps.js").Grid} Grid */

/** Clips the few extreme pixels of a gradient, which would make the others invisible; as in web/api.js. */
const PIXEL_DRAWING = { sigma: 2.5, percentile: 99.5 };

/** One file. `answer` is null before it is classified, and if it was refused. */
export class Tile {
  /** @type {Classification | null} */
  answer = null;
  /** @type {ModelError | null} */
  refusal = null;
  /** @type {Float32Array} the class activation maps `[9, side, side]`, in logits */
  #cam = new Float32Array();

  /** @param {NamedFile} file @param {Client} client @param {ModelData} data */
  constructor({ name, file }, client, data) {
    this.name = name;
    this.file = file;
    this.client = client;
    this.data = data;
  }

  async classify() {
    const start = performance.now();
    try {
      const { outputs, notes } = await this.client.classify(this.file);
      this.#cam = outputs.cam;
      this.answer = { ...answerOf(outputs, this.data), notes, seconds: (performance.now() - start) / 1000 };
    } catch (error) {
      if (!(error instanceof ModelError)) throw error;
      this.refusal = error;
    }
  }

  /** @param {Question} question @returns {Promise<EvidenceMap>} */
  async map(question) {
    if (question.method === "saliency") return this.#saliency(question);
    const { target, contrast } = question;
    return drawMap(this.#activation(this.#index(target), contrast), { question, unit: "logit", display: displayOf(contrast) });
  }

  /** The maps of all classes, on one scale. @param {string} contrast a class's code, or "" @param {number} size the side of the pictures @returns {EvidenceMap[]} */
  activationMaps(contrast, size) {
    const { codes } = this.data;
    const grids = codes.map((_, index) => this.#activation(index, contrast));
    const high = highest(grids, Boolean(contrast));
    return grids.map((grid, index) => {
      const question = { method: "gradcam", target: codes[index], contrast };
      return drawMap(grid, { question, unit: "logit", display: displayOf(contrast) }, { size, high });
    });
  }

  /** @param {number} index @param {string} contrast @returns {Grid} */
  #activation(index, contrast) {
    const side = Math.sqrt(this.#cam.length / this.data.codes.length);
    const grid = gridAt(this.#cam, side, index);
    return contrast ? difference(grid, gridAt(this.#cam, side, this.#index(contrast))) : grid;
  }

  /** @param {Question} question */
  async #saliency(question) {
    const gradient = await this.client.saliency(this.file, this.#index(question.target));
    const other = question.contrast && (await this.client.saliency(this.file, this.#index(question.contrast)));
    const signed = other ? gradient.map((value, index) => value - other[index]) : gradient;
    const display = other ? "signed" : "magnitude";
    return drawMap(overChannels(signed, Boolean(other)), { question, unit: "logit per input unit", display, ...PIXEL_DRAWING });
  }

  /** @param {string} code */
  #index(code) {
    return this.data.codes.indexOf(code);
  }
}

/** @param {string} contrast */
function displayOf(contrast) {
  return contrast ? "signed" : "positive";
}

/** Dispatches `added`, `done` (one more tile is classified or refused), `selected` and `removed`. */
export class Tiles extends EventTarget {
  /** @type {Tile[]} */
  list = [];
  /** @type {Tile | null} */
  selected = null;
  /** Seconds in which the tiles of the last addition were classified. */
  seconds = 0;
  #isRunning = false;

  /** @param {Client} client @param {ModelData} data */
  constructor(client, data) {
    super();
    this.client = client;
    this.data = data;
  }

  /** The tiles with an answer or a refusal. */
  get done() {
    return this.list.filter(({ answer, refusal }) => answer || refusal);
  }

  /** @param {NamedFile[]} files */
  add(files) {
    this.list.push(...files.map((file) => new Tile(file, this.client, this.data)));
    this.#changed("added");
    if (!this.#isRunning) this.#classify();
  }

  /** @param {Tile} tile */
  select(tile) {
    this.selected = tile;
    this.#changed("selected");
  }

  clear() {
    this.list = [];
    this.selected = null;
    this.#changed("removed");
  }

  async #classify() {
    this.#isRunning = true;
    const start = performance.now();
    let count = 0;
    for (let next = this.#next(); next; next = this.#next()) {
      await next.classify();
      count += 1;
      if (!this.list.includes(next)) continue;
      this.seconds = (performance.now() - start) / 1000;
      this.rate = count / this.seconds;
      if (!this.selected && next.answer) this.select(next);
      this.#changed("done");
    }
    this.#isRunning = false;
  }

  #next() {
    return this.list.find(({ answer, refusal }) => !answer && !refusal);
  }

  /** @param {string} name */
  #changed(name) {
    this.dispatchEvent(new Event(name));
  }
}
