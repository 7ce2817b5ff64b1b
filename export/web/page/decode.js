/** An image file to the pixels that the graphs take, or a refusal. The header says what the browser would misread. */

import { megabytes } from "./format.js";
import { pixelsOf } from "./pictures.js";
import { MAX_BYTES, MAX_PIXELS, shapeProblem } from "./shape.js";

/** @typedef {{pixels: Uint8Array, width: number, height: number, notes: string[]}} Image RGB, row by row */

const CONVERTED = "The browser converted the colours from the file’s colour space to sRGB; the server may differ by a level.";
const ADVICE = "Save it as an 8-bit PNG, or use the server or the Python command, which read it.";
const STILL = "Save one still image.";

/** Why a file gets no answer. */
export class Refusal extends Error {
  /** @param {string} code as the server's @param {string} message */
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/**
 * Upright sRGB pixels. Transparent parts are laid on white, the colour of an empty slide.
 * @param {Blob} file
 * @returns {Promise<Image>}
 */
export async function decode(file) {
  if (file.size > MAX_BYTES) throw new Refusal("image_too_large", `The file has ${megabytes(file.size)}; at most ${megabytes(MAX_BYTES)} are read.`);
  const isConverted = readHeader(new DataView(await file.arrayBuffer()));
  const picture = await createImageBitmap(file, { premultiplyAlpha: "none" }).catch(() => null);
  if (!picture) throw new Refusal("image_corrupt", "The image file is damaged and cannot be decoded.");
  const problem = shapeProblem(picture);
  const { width, height } = picture;
  if (problem && !problem.canBeSent) throw new Refusal(width * height > MAX_PIXELS ? "image_too_large" : "image_too_small", problem.text);
  return { pixels: onWhite(picture), width, height, notes: [...(isConverted ? [CONVERTED] : []), ...(problem ? [problem.text] : [])] };
}

/** @param {ImageBitmap} picture */
function onWhite(picture) {
  const data = pixelsOf(picture);
  const pixels = new Uint8Array((data.length / 4) * 3);
  let isVisible = false;
  for (let from = 0, to = 0; from < data.length; from += 4, to += 3) {
    const opacity = data[from + 3];
    isVisible ||= opacity > 0;
    const white = 255 * (255 - opacity) + 127;
    for (let channel = 0; channel < 3; channel += 1) pixels[to + channel] = (data[from + channel] * opacity + white) / 255;
  }
  if (!isVisible) throw new Refusal("image_transparent", "Every pixel of the image is fully transparent.");
  return pixels;
}

/** Whether the file states a colour space other than sRGB. @param {DataView} view */
function readHeader(view) {
  const first = view.byteLength < 32 ? 0 : view.getUint32(0);
  if (first === 0x89504e47) return readPng(view);
  if (first >>> 8 === 0xffd8ff) return readJpeg(view);
  if (first === 0x52494646 && view.getUint32(8) === 0x57454250) return readWebp(view);
  if (first >>> 16 === 0x424d) return false;
  const isTiff = [0x49492a00, 0x4d4d002a, 0x49492b00, 0x4d4d002b].includes(first);
  if (isTiff) throw new Refusal("image_mode_unsupported", `Browsers do not decode TIFF. ${ADVICE}`);
  throw new Refusal("image_unreadable", "The file is not a PNG, JPEG, WebP or BMP image.");
}

/** @param {DataView} view */
function readPng(view) {
  const names = new Set();
  for (let place = 8, name = ""; name !== "IDAT" && place + 8 <= view.byteLength; place += view.getUint32(place) + 12) {
    name = textAt(view, place + 4);
    names.add(name);
  }
  if (names.has("acTL")) throw new Refusal("image_animated", `The PNG is an animation. ${STILL}`);
  if (names.has("cICP")) throw new Refusal("image_mode_unsupported", `The PNG is in a colour space of video (cICP). ${ADVICE}`);
  return names.has("iCCP") || (!names.has("sRGB") && (names.has("gAMA") || names.has("cHRM")));
}

/** @param {DataView} view */
function readJpeg(view) {
  let hasProfile = false;
  for (let place = 2; place + 10 < view.byteLength && view.getUint8(place) === 0xff; place += 2 + view.getUint16(place + 2)) {
    const marker = view.getUint8(place + 1);
    if (marker === 0xda) break;
    const isFrame = marker >= 0xc0 && marker <= 0xc3;
    if (isFrame && view.getUint8(place + 9) === 4) throw new Refusal("image_mode_unsupported", `The JPEG is in CMYK. ${ADVICE}`);
    hasProfile ||= marker === 0xe2 && textAt(view, place + 4) === "ICC_";
  }
  return hasProfile;
}

/** @param {DataView} view */
function readWebp(view) {
  const flags = textAt(view, 12) === "VP8X" ? view.getUint8(20) : 0;
  if (flags & 0x02) throw new Refusal("image_animated", `The WebP is an animation. ${STILL}`);
  return (flags & 0x20) !== 0;
}

/** Four characters. @param {DataView} view @param {number} place */
function textAt(view, place) {
  return String.fromCharCode(...[0, 1, 2, 3].map((index) => view.getUint8(place + index)));
}
