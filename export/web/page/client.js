/** The page's side of worker.js. */

/** @typedef {import("./model.js").Outputs} Outputs */
/** @typedef {{outputs: Outputs, width: number, height: number, notes: string[]}} Classified */

/** Why a file has no answer. */
export class ModelError extends Error {
  /** @param {string} message @param {string} code the server's, or `internal_error` */
  constructor(message, code) {
    super(message);
    this.code = code;
  }
}

export class Client {
  #worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  /** @type {Map<number, {resolve: (value: any) => void, reject: (error: Error) => void}>} */
  #calls = new Map();
  #count = 0;

  /** @param {(share: number) => void} onProgress called with the share of the model that is loaded */
  constructor(onProgress) {
    this.#worker.addEventListener("message", ({ data }) => ("share" in data ? onProgress(data.share) : this.#settle(data)));
    this.#worker.addEventListener("error", () => this.#fail());
  }

  /** Load the model; returns what computes. @returns {Promise<string>} */
  open() {
    return this.#call("open");
  }

  /** @param {File} file @returns {Promise<Classified>} */
  classify(file) {
    return this.#call("classify", file);
  }

  /** The signed gradient `[3, side, side]` of a class's logit. @param {File} file @param {number} target @returns {Promise<Float32Array>} */
  saliency(file, target) {
    return this.#call("saliency", file, target);
  }

  /** @param {string} name @param {...unknown} options @returns {Promise<any>} */
  #call(name, ...options) {
    const id = (this.#count += 1);
    this.#worker.postMessage({ id, name, options });
    return new Promise((resolve, reject) => this.#calls.set(id, { resolve, reject }));
  }

  /** @param {{id: number, result?: unknown, message?: string, code?: string}} answer */
  #settle({ id, result, message, code }) {
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    if (message === undefined) call?.resolve(result);
    else call?.reject(new ModelError(message, code ?? ""));
  }

  #fail() {
    for (const { reject } of this.#calls.values()) reject(new ModelError("The model stopped. Reload the page.", "internal_error"));
    this.#calls.clear();
  }
}
