/** The two graphs in ONNX Runtime Web: on the GPU if the browser offers WebGPU, otherwise in WebAssembly. */

import { decode } from "./decode.js";

/** @typedef {import("./decode.js").Image} Image */
/** @typedef {{logits: Float32Array, cam: Float32Array, oodScore: number | null}} Outputs of one image */
/** @typedef {{name: string, script: string, provider: string}} Engine */

/** @type {Engine} */
const GPU = { name: "WebGPU", script: "ort.webgpu.bundle.min.js", provider: "webgpu" };
/** @type {Engine} */
const CPU = { name: "WebAssembly", script: "ort.wasm.bundle.min.js", provider: "wasm" };
const FILES = ["classify.onnx", "explain.onnx", "weights.bin"];
/** More threads than this do not make a network of this size faster. */
const MAX_THREADS = 4;

export class Model {
  /** @type {any} the explaining session, opened by the first explanation */
  #explaining;

  /**
   * @param {any} ort ONNX Runtime Web
   * @param {Engine} engine
   * @param {any} classifying the session
   * @param {Record<string, Uint8Array>} files
   */
  constructor(ort, engine, classifying, files) {
    this.ort = ort;
    this.provider = engine.provider;
    const { numThreads } = ort.env.wasm;
    this.engine = engine === CPU && numThreads > 1 ? `${engine.name}, ${numThreads} threads` : engine.name;
    this.classifying = classifying;
    this.files = files;
  }

  /**
   * Download the files and start the first engine that gives the stored answer for the stored tile.
   * @param {(share: number) => void} onProgress called with the share downloaded
   */
  static async open(onProgress) {
    const { golden, bytes } = await (await fetch("model.json")).json();
    const files = await download(bytes, onProgress);
    const tile = await decode(await (await fetch(golden.image)).blob());
    for (const engine of (await hasGpu()) ? [GPU, CPU] : [CPU]) {
      const model = await start(engine, files).catch((error) => console.warn(engine.name, error));
      if (model && (await model.#gives(golden, tile))) return model;
    }
    throw new Error("This browser does not compute the model’s stored answer for the stored tile, so it gets no others.");
  }

  /** @param {Image} image @returns {Promise<Outputs>} */
  async classify(image) {
    const { logits, cam, ood_score: score } = await this.classifying.run({ image: this.#tensor(image) });
    return { logits: logits.data, cam: cam.data, oodScore: score ? score.data[0] : null };
  }

  /** The signed gradient of a logit at the network's input, `[3, side, side]`. @param {Image} image @param {number} target */
  async saliency(image, target) {
    const { Tensor } = this.ort;
    this.#explaining ??= await openSession(this.ort, this.provider, this.files, "explain.onnx");
    const { saliency } = await this.#explaining.run({
      image: this.#tensor(image),
      target: new Tensor("int64", [BigInt(target)], [1]),
      n_steps: new Tensor("int64", [0n], []),
      baseline: new Tensor("float32", [0, 0, 0], [3]),
    });
    return /** @type {Float32Array} */ (saliency.data);
  }

  /** @param {Image} image */
  #tensor({ pixels, width, height }) {
    return new this.ort.Tensor("uint8", pixels, [1, height, width, 3]);
  }

  /** @param {{logits: number[], tolerance: number}} golden @param {Image} tile */
  async #gives({ logits, tolerance }, tile) {
    const found = await this.classify(tile).catch(() => null);
    return found !== null && logits.every((logit, index) => Math.abs(logit - found.logits[index]) <= tolerance);
  }
}

async function hasGpu() {
  const { gpu } = /** @type {any} */ (navigator);
  const adapter = await gpu?.requestAdapter().catch(() => null);
  // A GPU in software is slower than WebAssembly.
  return Boolean(adapter && !adapter.info?.isFallbackAdapter);
}

/** @param {Engine} engine @param {Record<string, Uint8Array>} files */
async function start(engine, files) {
  const ort = await import(new URL(`onnxruntime/${engine.script}`, import.meta.url).href);
  ort.env.wasm.numThreads = crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, MAX_THREADS) : 1;
  return new Model(ort, engine, await openSession(ort, engine.provider, files, "classify.onnx"), files);
}

/** @param {any} ort @param {string} provider @param {Record<string, Uint8Array>} files @param {string} graph */
function openSession(ort, provider, files, graph) {
  const weights = { path: "weights.bin", data: files["weights.bin"] };
  return ort.InferenceSession.create(files[graph], { executionProviders: [provider], externalData: [weights] });
}

/**
 * @param {Record<string, number>} bytes the size of each file
 * @param {(share: number) => void} onProgress
 * @returns {Promise<Record<string, Uint8Array>>}
 */
async function download(bytes, onProgress) {
  const total = FILES.reduce((sum, name) => sum + bytes[name], 0);
  let received = 0;
  const read = async (/** @type {string} */ name) => {
    const response = await fetch(name);
    if (!response.ok || !response.body) throw new Error(`The file ${name} of the model could not be loaded.`);
    const content = new Uint8Array(bytes[name]);
    let position = 0;
    for (const reader = response.body.getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) return [name, content];
      content.set(value, position);
      position += value.length;
      received += value.length;
      onProgress(received / total);
    }
  };
  return Object.fromEntries(await Promise.all(FILES.map(read)));
}
