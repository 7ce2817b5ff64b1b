/**
 * Types of the server's JSON, as far as the page uses it, and of the page's own values.
 *
 * @typedef {object} TestTiles Tiles of the test split with a confidence from `low` to `high`.
 * @property {number} low
 * @property {number} high
 * @property {number} tiles
 * @property {number} right
 *
 * @typedef {object} Verdict
 * @property {"unreliable" | "uncertain" | "confident"} state
 * @property {string[]} classes codes, most probable first
 * @property {number} tumour_share
 * @property {boolean | null} tumour_related
 * @property {number | null} tumour_threshold
 * @property {number | null} share_right
 * @property {TestTiles | null} test_tiles
 *
 * @typedef {object} Classification The part of an answer that needs no picture.
 * @property {{name: string, version: string, digest: string, training_data: string, engine?: string}} model
 * @property {{code: string, probability: number, calibrated: boolean}} prediction
 * @property {Record<string, number>} probabilities
 * @property {Verdict} verdict
 * @property {{coverage: number, codes: string[]} | null} prediction_set
 * @property {number | null} ood_score
 * @property {boolean | null} in_distribution
 * @property {{level: string, disclaimer: string} | null} risk
 * @property {string[]} [notes]
 * @property {{microns: number | null, assumed: number | null, mpp: number | null, source: string | null}} [field]
 * @property {{verdict: string | null, reasons: string[]}} [fit]
 * @property {number} seconds the time from request to response, measured by the page
 *
 * @typedef {Classification & {canonical: {size: number, image: string}, explanations: ExplanationJson[]}} Answer
 *
 * @typedef {object} ExplanationJson
 * @property {string} method
 * @property {{code: string}} target
 * @property {{code: string}} [contrast]
 * @property {{message: string}} [skipped]
 * @property {{shows: string, range: [number, number], percentile: number, sigma: number}} rendering
 * @property {string} unit
 * @property {string} heatmap base64 PNG with alpha
 * @property {string} overlay base64 JPEG, of the tile alone
 *
 * @typedef {object} Question What a map explains; `contrast` is "" for none.
 * @property {string} method
 * @property {string} target
 * @property {string} contrast
 *
 * @typedef {object} EvidenceMap
 * @property {Question} question
 * @property {ImageBitmap} picture
 * @property {Float32Array} values one for each pixel of the picture, in `unit`
 * @property {number} width
 * @property {number} height
 * @property {number} high the value with the full colour
 * @property {boolean} signed
 * @property {string} unit
 * @property {number} percentile
 * @property {number} sigma
 * @property {Record<string, unknown>} details
 *
 * @typedef {object} Job Work on a region.
 * @property {string} id
 * @property {"queued" | "running" | "done" | "failed"} state
 * @property {{done: number, total: number} | null} progress tiles
 * @property {{code: string, message: string, field: string | null} | null} error
 * @property {string | null} slide
 * @property {{mpp?: string}} options
 * @property {Record<string, string>} links
 *
 * @typedef {object} Shape A picture of the server, in Deep Zoom tiles.
 * @property {number} width
 * @property {number} height
 * @property {number | null} mpp as the file states it
 * @property {number} tile_size
 * @property {number} min_level
 * @property {number} max_level
 *
 * @typedef {object} Tile
 * @property {string} name
 * @property {Blob} blob
 * @property {string} headline the verdict as text; "" before the first response
 *
 * @typedef {object} Example
 * @property {string} file
 * @property {string} title
 * @property {string} tissue
 * @property {"right" | "wrong" | "unlike"} answer
 */
export {};
