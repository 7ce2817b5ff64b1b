/** The limits of image files, and whether a picture has the shape of a tile. */

export const MAX_BYTES = 16 * 1024 * 1024;
export const MAX_PIXELS = 4096 * 4096;
/** Images with longer sides or larger aspect ratios are probably regions of a slide, not tiles. */
const MAX_TILE_SIDE = 1024;
const MAX_ASPECT = 1.25;
const MIN_SIDE = 16;

/**
 * What is wrong with a picture's shape, if anything.
 * @param {ImageBitmap} picture
 * @returns {{text: string, canBeSent: boolean} | null}
 */
export function shapeProblem({ width, height }) {
  const size = `This image has ${width} × ${height} pixels`;
  if (Math.min(width, height) < MIN_SIDE) {
    return { text: `${size}; each side needs at least ${MIN_SIDE}.`, canBeSent: false };
  }
  if (width * height > MAX_PIXELS) {
    const count = ((width * height) / 1e6).toFixed(0);
    const text = `This image has ${count} million pixels; the limit is ${(MAX_PIXELS / 1e6).toFixed(1)} million (4096 × 4096).`;
    return { text, canBeSent: false };
  }
  const aspect = Math.max(width, height) / Math.min(width, height);
  if (Math.max(width, height) > MAX_TILE_SIDE || aspect > MAX_ASPECT) {
    const text = `${size}: it looks like a region of a slide, not like a tile. The model would squeeze all of it into one small square.`;
    return { text, canBeSent: true };
  }
  return null;
}
