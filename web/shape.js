/** The limits of image files, and whether a picture has the shape of a tile. */

import { CONTRACT } from "./contract.js";

const { max_request_bytes: MAX_BYTES, max_pixels: MAX_PIXELS, min_side: MIN_SIDE } = CONTRACT.limits;
export { MAX_BYTES, MAX_PIXELS };
/** Images with longer sides or larger aspect ratios are probably regions of a slide, not tiles. */
const MAX_TILE_SIDE = 1024;
const MAX_ASPECT = 1.25;

/**
 * What is wrong with a picture's shape, if anything.
 * @param {ImageBitmap} picture
 * @returns {{text: string, canBeSent: boolean, isRegion: boolean} | null}
 */
export function shapeProblem({ width, height }) {
  const size = `This image has ${width} × ${height} pixels`;
  if (Math.min(width, height) < MIN_SIDE) {
    return { text: `${size}; each side needs at least ${MIN_SIDE}.`, canBeSent: false, isRegion: false };
  }
  if (width * height > MAX_PIXELS) {
    const count = ((width * height) / 1e6).toFixed(0);
    const side = Math.sqrt(MAX_PIXELS);
    const text = `This image has ${count} million pixels; the limit is ${(MAX_PIXELS / 1e6).toFixed(1)} million (${side} × ${side}).`;
    return { text, canBeSent: false, isRegion: false };
  }
  const aspect = Math.max(width, height) / Math.min(width, height);
  if (Math.max(width, height) > MAX_TILE_SIDE || aspect > MAX_ASPECT) {
    const text = `${size}: it looks like a region of a slide, not like a tile. The model would squeeze all of it into one small square.`;
    return { text, canBeSent: true, isRegion: true };
  }
  return null;
}
