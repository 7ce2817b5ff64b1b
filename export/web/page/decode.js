/** An image file to the pixels that the graphs take, or a refusal. The header says what the browser would misread. */

import { megabytes } from "./format.js";
import { pixelsOf } from "./pictures.js";
import { MAX_BYTES, MAX_PIXELS, shapeProblem } from "./shape.js";

/** @typedef {{pixels: Uint8Array, width: number, height: number, notes: string[]}} Image RGB, row by row */
/** @typedef {{refusal?: string, note?: string}} Header */

const NEAR = "Pixels may differ from the server’s by some levels, because the browser decoded";
const ADVICE = "Save it as an 8-bit PNG, or use the server or the Python command, which read it.";

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
  const { refusal, note } = readHeader(new DataView(await file.arrayBuffer()));
  if (refusal) throw new Refusal("image_mode_unsupported", `${refusal} ${ADVICE}`);
  const picture = await createImageBitmap(file, { premultiplyAlpha: "none" }).catch(() => null);
  if (!picture) throw new Refusal("image_corrupt", "The image file is damaged and cannot be decoded.");
  const problem = shapeProblem(picture);
  const { width, height } = picture;
  if (problem && !problem.canBeSent) throw new Refusal(width * height > MAX_PIXELS ? "image_too_large" : "image_too_small", problem.text);
  return { pixels: onWhite(picture), width, height, notes: [note, problem?.text].filter((text) => text !== undefined) };
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

/** @param {DataView} view @returns {Header} */
function readHeader(view) {
  const first = view.byteLength < 16 ? 0 : view.getUint32(0);
  if (first === 0x89504e47) return readPng(view);
  if (first >>> 8 === 0xffd8ff) return readJpeg(view);
  if (first === 0x52494646 && view.getUint32(8) === 0x57454250) return readWebp(view);
  if (first >>> 16 === 0x424d) return {};
  const isTiff = [0x49492a00, 0x4d4d002a, 0x49492b00, 0x4d4d002b].includes(first);
  if (isTiff) return { refusal: "Browsers do not decode TIFF." };
  throw new Refusal("image_unreadable", "The file is not a PNG, JPEG, WebP or BMP image.");
}

/** Chunks before the pixels. @param {DataView} view @returns {Header} */
function readPng(view) {
  const names = new Set();
  for (let place = 8; place + 8 <= view.byteLength; place += view.getUint32(place) + 12) {
    const name = text(view, place + 4);
    if (name === "IDAT") break;
    names.add(name);
  }
  const [depth, kind] = [view.getUint8(24), view.getUint8(25)];
  if (names.has("acTL")) return { refusal: "The PNG is an animation." };
  if (names.has("cICP")) return { refusal: "The PNG is in a colour space of video (cICP)." };
  const isConverted = names.has("iCCP") || (!names.has("sRGB") && (names.has("gAMA") || names.has("cHRM")));
  if (isConverted) return { note: `${NEAR} the file’s colour space.` };
  if (depth === 16) return { note: `${NEAR} 16 bits a channel.` };
  return kind === 4 || kind === 6 || names.has("tRNS") ? { note: `${NEAR} transparency.` } : {};
}

/** Markers before the first scan. @param {DataView} view @returns {Header} */
function readJpeg(view) {
  let hasProfile = false;
  let channels = 0;
  for (let place = 2; place + 10 < view.byteLength && view.getUint8(place) === 0xff; place += 2 + view.getUint16(place + 2)) {
    const marker = view.getUint8(place + 1);
    if (marker === 0xda) break;
    if (marker >= 0xc0 && marker <= 0xc3) channels = view.getUint8(place + 9);
    hasProfile ||= marker === 0xe2 && text(view, place + 4) === "ICC_";
  }
  if (channels === 4) return { refusal: "The JPEG is in CMYK." };
  return { note: hasProfile ? `${NEAR} the file’s colour space.` : `${NEAR} JPEG.` };
}

/** @param {DataView} view @returns {Header} */
function readWebp(view) {
  const flags = text(view, 12) === "VP8X" ? view.getUint8(20) : 0;
  if (flags & 0x02) return { refusal: "The WebP is an animation." };
  if (flags & 0x20) return { note: `${NEAR} the file’s colour space.` };
  return text(view, 12) === "VP8L" ? {} : { note: `${NEAR} WebP.` };
}

/** Four characters. @param {DataView} view @param {number} place */
function text(view, place) {
  return String.fromCharCode(...[0, 1, 2, 3].map((index) => view.getUint8(place + index)));
}
