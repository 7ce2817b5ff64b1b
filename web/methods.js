/** The server's explanation methods, in the order of the page's shortcuts, with the page's words about them. */

import { CONTRACT } from "./contract.js";

/**
 * @typedef {object} Method
 * @property {string} name the server's
 * @property {string} title
 * @property {keyof typeof GROUPS} group
 * @property {string} claim what its maps can claim, in two words
 * @property {string} meaning
 */

export const GROUPS = {
  layer: "From the last layer",
  perturbation: "From covered parts",
  pixels: "From pixels",
  none: "Not evidence",
};

/** @type {readonly Method[]} */
const TEXTS = [
  {
    name: "gradcam",
    title: "Grad-CAM",
    group: "layer",
    claim: "exact, 7 × 7",
    meaning: "Where the evidence for the class is. Its 7 × 7 cells add up to the class’s score, up to a constant.",
  },
  {
    name: "occlusion",
    title: "Occlusion",
    group: "perturbation",
    claim: "model runs",
    meaning: "How much the score drops if a square is covered. It uses only the model’s outputs.",
  },
  {
    name: "integrated_gradients",
    title: "Integrated gradients",
    group: "pixels",
    claim: "approximate",
    meaning: "How much each pixel adds to the score, starting from a black image.",
  },
  {
    name: "layercam",
    title: "LayerCAM",
    group: "layer",
    claim: "approximate",
    meaning: "The last layer’s features, weighted by their positive gradients at each position.",
  },
  {
    name: "gradcam_plus_plus",
    title: "Grad-CAM++",
    group: "layer",
    claim: "approximate",
    meaning: "The last layer’s features, weighted by their positive gradients overall.",
  },
  {
    name: "smoothgrad",
    title: "SmoothGrad",
    group: "pixels",
    claim: "sampled",
    meaning: "The mean gradient of noisy copies of the tile.",
  },
  {
    name: "saliency",
    title: "Saliency",
    group: "pixels",
    claim: "local",
    meaning: "How much a small change of each pixel changes the score.",
  },
  {
    name: "input_x_gradient",
    title: "Input × gradient",
    group: "pixels",
    claim: "local",
    meaning: "The gradient times the pixel.",
  },
  {
    name: "guided_backprop",
    title: "Guided backpropagation",
    group: "none",
    claim: "visual only",
    meaning: "Shows edges, independent of the class; for comparison only.",
  },
];

/** Those of the server that give a map of their own. @type {readonly Method[]} */
export const METHODS = TEXTS.filter(({ name }) => CONTRACT.methods.some((method) => method.name === name && !method.same_as));

const BY_NAME = new Map(METHODS.map((method) => [method.name, method]));

/** @param {string} name @returns {Method} */
export function methodOf(name) {
  return BY_NAME.get(name) ?? METHODS[0];
}

/** @param {string} name */
export function isMethod(name) {
  return BY_NAME.has(name);
}
