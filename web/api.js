/** The model's HTTP API, on this page's origin: requests, typed responses, and a one-sentence message for each failure. */

import { askToken, forgetToken, storedToken } from "/token.js";

/** @typedef {import("/types.js").Answer} Answer */
/** @typedef {import("/types.js").Question} Question */

export const MODEL = "pathmnist";
/** The coverage of the prediction sets. */
export const COVERAGE = 0.95;
/** Rendering options: colours with transparency, and the tile without a map. */
const DRAWING = { colormap: "evidence", size: "448", alpha: "0" };
/** Clips the few extreme pixels of pixel methods, which would make the others invisible. */
const PIXEL_DRAWING = { sigma: "2.5", percentile: "99.5" };
const PIXEL_METHODS = ["integrated_gradients", "smoothgrad", "saliency", "input_x_gradient", "guided_backprop"];
const RETRIES = 3;

/** @type {Record<string, string>} */
const SENTENCES = {
  not_found: "The server is reachable, but it does not serve the model of this page.",
  overloaded: "The model is overloaded. Please try again in a few seconds.",
  rate_limited: "There were too many requests from your address. Please wait a moment.",
  request_timeout: "The image took too long to arrive. Please try again.",
  timeout: "The model took too long. Please try again, or request fewer maps.",
  out_of_memory: "The model ran out of memory. Please try again in a few seconds.",
  internal_error: "The model failed on this image. The server’s log contains the reason.",
};
export const NOT_REACHABLE = "The model is not reachable. Your tile is kept; the page tries again every 3 s.";

/** The reason for a failed request. `isDown` is true if the server failed, not the request. */
export class ApiError extends Error {
  /** @param {string} message @param {string} code */
  constructor(message, code) {
    super(message);
    this.code = code;
    this.isDown = code === "unavailable";
  }
}

/**
 * Class, verdict, the tile as the model sees it, and the Grad-CAM map, which needs no additional computation.
 * @param {Blob} file
 * @param {AbortSignal} signal
 * @returns {Promise<Answer>}
 */
export async function classify(file, signal) {
  const start = performance.now();
  const answer = await post("predictions", predictionOptions(), file, signal);
  return { ...answer, seconds: (performance.now() - start) / 1000 };
}

/** The options of `classify`, also used by "copy as curl". */
export function predictionOptions() {
  const include = "verdict,confidence,prediction_set,ood,risk,canonical";
  return { explain: "gradcam", include, coverage: String(COVERAGE), ...DRAWING };
}

/**
 * One map.
 * @param {Blob} file
 * @param {Question} question
 * @param {AbortSignal} signal
 */
export async function explain(file, question, signal) {
  const answer = await post("explanations", explanationOptions(question), file, signal);
  return answer.explanations[0];
}

/** @param {Question} question @returns {Record<string, string>} */
export function explanationOptions({ method, target, contrast }) {
  const drawing = PIXEL_METHODS.includes(method) ? { ...DRAWING, ...PIXEL_DRAWING } : DRAWING;
  return { method, target, include: "none", ...(contrast ? { contrast } : {}), ...drawing };
}

/** The server's metrics in Prometheus' text format. */
export async function metrics() {
  return (await ask("/metrics", {})).text();
}

/** Whether the server is ready. */
export async function isReady() {
  try {
    return (await fetch("/ready")).ok;
  } catch {
    return false;
  }
}

/**
 * @param {string} verb
 * @param {Record<string, string>} options
 * @param {Blob} body
 * @param {AbortSignal} signal
 * @returns {Promise<Answer>}
 */
async function post(verb, options, body, signal) {
  const headers = { "Content-Type": "application/octet-stream" };
  const path = `/${verb}/${MODEL}?${new URLSearchParams(options)}`;
  return (await ask(path, { method: "POST", headers, body, signal })).json();
}

/**
 * Send a request with the visitor's token, if any. Retries until the token is accepted and the queue has room.
 * @param {string} path
 * @param {RequestInit} request
 */
async function ask(path, request) {
  for (let attempt = 0; ; attempt += 1) {
    const response = await send(path, request);
    if (response.ok) return response;
    const { code, message } = await refusal(response);
    if (code === "unauthorized") {
      forgetToken();
      await askToken();
    } else if (code === "overloaded" && attempt < RETRIES) {
      await new Promise((resolve) => setTimeout(resolve, 1000 * Number(response.headers.get("Retry-After") ?? 1)));
    } else {
      throw new ApiError(SENTENCES[code] ?? message, code);
    }
  }
}

/** @param {string} path @param {RequestInit} request */
async function send(path, request) {
  const token = storedToken();
  const headers = { ...request.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  try {
    return await fetch(path, { ...request, headers });
  } catch (error) {
    if (request.signal?.aborted) throw error;
    throw new ApiError(NOT_REACHABLE, "unavailable");
  }
}

/** The error in a failed response. @param {Response} response @returns {Promise<{code: string, message: string}>} */
async function refusal(response) {
  try {
    const { code, message } = (await response.json()).error;
    return code === "unavailable" ? { code, message: NOT_REACHABLE } : { code, message };
  } catch {
    return { code: "internal_error", message: "" };
  }
}
