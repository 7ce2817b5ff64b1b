/** Decodes and computes beside the page, which stays responsive. Each message names a function of `CALLS`. */

import { decode, Refusal } from "./decode.js";
import { Model } from "./model.js";

/** @typedef {{id: number, name: keyof typeof CALLS, options: any[]}} Call */

/** @type {Model} */
let model;

const CALLS = {
  /** @returns {Promise<string>} what computes */
  async open() {
    model = await Model.open((share) => postMessage({ share }));
    return model.engine;
  },

  /** @param {File} file */
  async classify(file) {
    const image = await decode(file);
    return { outputs: await model.classify(image), width: image.width, height: image.height, notes: image.notes };
  },

  /** @param {File} file @param {number} target a class id */
  async saliency(file, target) {
    return model.saliency(await decode(file), target);
  },
};

/** ONNX Runtime computes one request at a time. @type {Promise<void>} */
let last = Promise.resolve();

self.addEventListener("message", ({ data }) => {
  last = last.then(() => run(data));
});

/** @param {Call} call */
async function run({ id, name, options }) {
  try {
    const call = /** @type {(...options: any[]) => Promise<unknown>} */ (CALLS[name]);
    postMessage({ id, result: await call(...options) });
  } catch (error) {
    const { message } = /** @type {Error} */ (error);
    postMessage({ id, message, code: error instanceof Refusal ? error.code : "internal_error" });
  }
}
