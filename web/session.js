/** The state of this tab: the current tile, its response and maps, and earlier tiles. It is stored only in the tab. */

import { ApiError, classify, explain } from "/api.js";
import { readMap } from "/evidence.js";
import { base64Of, blobOf, decode, pictureOf } from "/pictures.js";

/** @typedef {import("/types.js").Answer} Answer */
/** @typedef {import("/types.js").EvidenceMap} EvidenceMap */
/** @typedef {import("/types.js").Question} Question */
/** @typedef {import("/types.js").Tile} Tile */
/** @typedef {{name: string, type: string, data: string, headline: string}} StoredTile */

const KEY = "tiles";
const OPEN_KEY = "isOpen";
/** Limits for the characters in the tab's storage, and for the tiles in its history. */
const MAX_STORED = 4_000_000;
const MAX_HISTORY = 24;

/** Dispatches `tile` (a new tile, without a response), `answer`, `failure` and `history`. */
class Session extends EventTarget {
  /** @type {Tile | null} */
  tile = null;
  /** @type {Answer | null} */
  answer = null;
  /** @type {Tile[]} the newest first */
  history = [];
  /** @type {ApiError | null} the reason for a missing response */
  failure = null;
  /** @type {Promise<ImageBitmap | null>} the tile's picture */
  picture = Promise.resolve(null);
  /** @type {Map<string, Promise<EvidenceMap>>} */
  #maps = new Map();
  #requests = new AbortController();

  /** Restore the tile and the history after a reload. */
  restore() {
    const stored = /** @type {StoredTile[]} */ (JSON.parse(sessionStorage.getItem(KEY) ?? "[]"));
    this.history = stored.map(({ name, type, data, headline }) => ({ name, blob: blobOf(data, type), headline }));
    if (this.history.length && sessionStorage.getItem(OPEN_KEY)) this.open(this.history[0]);
  }

  /** Show a tile and classify it. @param {Tile} tile */
  async open(tile) {
    this.tile = tile;
    sessionStorage.setItem(OPEN_KEY, "yes");
    this.picture = decode(tile.blob);
    if (!this.history.includes(tile)) this.history = [tile, ...this.history].slice(0, MAX_HISTORY);
    await this.ask();
  }

  /** Classify a tile for the history, without showing it. @param {Tile} tile */
  async remember(tile) {
    this.history = [...this.history, tile].slice(0, MAX_HISTORY);
    this.#changed("history");
    const answer = await classify(tile.blob, new AbortController().signal);
    tile.headline = headlineOf(answer);
    this.#changed("history");
    await this.#store();
  }

  /** Classify the current tile, or retry it. */
  async ask() {
    const tile = this.tile;
    if (!tile) return;
    this.#requests.abort();
    this.#requests = new AbortController();
    const { signal } = this.#requests;
    this.answer = null;
    this.failure = null;
    this.#maps.clear();
    this.#changed("tile");
    try {
      const answer = await classify(tile.blob, signal);
      const [explanation] = answer.explanations;
      this.#maps.set(keyOf({ method: "gradcam", target: answer.prediction.code, contrast: "" }), readMap(explanation));
      const own = this.picture;
      this.picture = own.then((picture) => picture ?? pictureOf(explanation.overlay, "image/jpeg"));
      this.answer = answer;
      tile.headline = headlineOf(answer);
      this.#changed("answer");
      await this.#store();
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      this.failure = error;
      this.#changed("failure");
    }
  }

  /** A map of the tile. Repeated requests share one response. @param {Question} question @returns {Promise<EvidenceMap>} */
  map(question) {
    const key = keyOf(question);
    let map = this.#maps.get(key);
    if (!map && this.tile) {
      const { signal } = this.#requests;
      map = explain(this.tile.blob, question, signal).then(readMap);
      // A failure may be temporary, so the next call retries.
      map.catch(() => this.#maps.delete(key));
      this.#maps.set(key, map);
    }
    return map ?? Promise.reject(new Error("there is no tile"));
  }

  /** Return to the first screen and keep the history. */
  close() {
    this.#requests.abort();
    this.tile = null;
    this.answer = null;
    this.failure = null;
    sessionStorage.removeItem(OPEN_KEY);
    this.#changed("tile");
  }

  /** @param {string} name */
  #changed(name) {
    this.dispatchEvent(new Event(name));
  }

  /** Store the current tile and as many others as fit, for a reload of this tab. */
  async #store() {
    const shown = this.tile ? [this.tile, ...this.history.filter((tile) => tile !== this.tile)] : this.history;
    const kept = [];
    let size = 0;
    for (const tile of shown) {
      size += (tile.blob.size * 4) / 3;
      if (size > MAX_STORED) break;
      kept.push({ name: tile.name, type: tile.blob.type, data: await base64Of(tile.blob), headline: tile.headline });
    }
    try {
      sessionStorage.setItem(KEY, JSON.stringify(kept));
    } catch {
      sessionStorage.removeItem(KEY);
    }
  }
}

/** @param {Question} question */
function keyOf({ method, target, contrast }) {
  return `${method} ${target} ${contrast}`;
}

/** A verdict in a few characters, for the history. @param {Answer} answer */
function headlineOf({ verdict }) {
  return verdict.state === "unreliable" ? "?" : verdict.classes.join(" or ");
}

export const session = new Session();
