/** The server's own table of classes, methods and limits: the part of `GET /models/pathmnist` that needs no token. */

/**
 * @typedef {object} Contract
 * @property {{class_id: number, code: string, name: string, description: string, colour: string}[]} classes in the order of the network's outputs
 * @property {{name: string, shows: "positive" | "magnitude", same_as: string | null}[]} methods
 * @property {{formats: string[], min_side: number, max_pixels: number, max_request_bytes: number}} limits
 * @property {{pixels: number, micrometres_per_pixel: number}} field_of_view what a tile has to show
 */

/** @type {Contract} */
export const CONTRACT = await (await fetch(new URL("contract.json", import.meta.url))).json();
