/** Converts image files and base64 to pictures, and back. */

/** @param {string} base64 @param {string} type */
export function blobOf(base64, type) {
  return new Blob([Uint8Array.from(atob(base64), (character) => character.charCodeAt(0))], { type });
}

/** @param {string} base64 @param {string} type */
export function pictureOf(base64, type) {
  return createImageBitmap(blobOf(base64, type));
}

/** A file's picture, or null if the browser cannot read it. Most browsers cannot read TIFF. @param {Blob} file */
export function decode(file) {
  return createImageBitmap(file).catch(() => null);
}

/** @param {Blob} blob @returns {Promise<string>} */
export async function base64Of(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = "";
  for (let start = 0; start < bytes.length; start += 0x8000) {
    text += String.fromCharCode(...bytes.subarray(start, start + 0x8000));
  }
  return btoa(text);
}

/**
 * A square PNG from the middle of a picture.
 * @param {ImageBitmap} picture
 * @param {number} side
 * @returns {Promise<Blob>}
 */
export function centreOf(picture, side) {
  const canvas = new OffscreenCanvas(side, side);
  const left = Math.floor((picture.width - side) / 2);
  const top = Math.floor((picture.height - side) / 2);
  canvas.getContext("2d")?.drawImage(picture, left, top, side, side, 0, 0, side, side);
  return canvas.convertToBlob({ type: "image/png" });
}

/** The pixels of a picture, RGBA. @param {ImageBitmap} picture */
export function pixelsOf(picture) {
  const context = new OffscreenCanvas(picture.width, picture.height).getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("this browser draws no pictures");
  context.drawImage(picture, 0, 0);
  return context.getImageData(0, 0, picture.width, picture.height).data;
}
