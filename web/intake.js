/** Accepts chosen, dropped and pasted files: checks them, crops them on request, and passes them to the session. */

import { CONTRACT } from "/contract.js";
import { byId } from "/dom.js";
import { list, megabytes } from "/format.js";
import { hideMessage, showMessage } from "/messages.js";
import { centreOf, decode } from "/pictures.js";
import { regions } from "/regions.js";
import { session } from "/session.js";
import { MAX_BYTES, shapeProblem } from "/shape.js";

const FORMATS = list(CONTRACT.limits.formats);
const CROP = CONTRACT.field_of_view.pixels;

/** Takes the files instead of the session, while a screen wants them. @type {((files: File[]) => void) | null} */
let taker = null;

/** Let a screen take all files, or none any longer. @param {((files: File[]) => void) | null} screen */
export function giveFilesTo(screen) {
  taker = screen;
}

/** Open the file dialogue. */
export function chooseFile() {
  byId("file").click();
}

/** Accept files from the file dialogue, the clipboard, and drag and drop. */
export function listen() {
  const input = /** @type {HTMLInputElement} */ (byId("file"));
  input.addEventListener("change", () => {
    take([...(input.files ?? [])]);
    input.value = "";
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) take(files);
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dropping");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    take([...(event.dataTransfer?.files ?? [])]);
  });
}

/** Paste from the clipboard with a button, which needs the browser's permission. */
export async function paste() {
  try {
    for (const item of await navigator.clipboard.read()) {
      const type = item.types.find((name) => name.startsWith("image/"));
      if (type) return await take([new File([await item.getType(type)], "pasted image", { type })]);
    }
    showMessage("There is no image in the clipboard. Copy one, then paste it here with Ctrl+V.");
  } catch {
    showMessage("The browser does not let this page read the clipboard. Press Ctrl+V instead.");
  }
}

/** Show the first of some files; classify the others for the history. @param {File[]} files */
export async function take(files) {
  if (taker && files.length) return taker(files);
  const [first, ...others] = files;
  if (!first) {
    showMessage(`The dropped item is not a file. Save the image, then choose it. The page accepts ${FORMATS}.`);
    return;
  }
  await check(first);
  for (const file of others) await session.remember({ name: file.name, blob: file, headline: "" }).catch(() => {});
}

/** @param {File} file */
async function check(file) {
  const again = { label: "Choose another", run: chooseFile };
  if (file.size > MAX_BYTES) {
    const limit = megabytes(MAX_BYTES);
    showMessage(`This file has ${megabytes(file.size)}; the limit is ${limit}. Save the image as JPEG or cut a tile out of it.`, [again]);
    return;
  }
  const picture = await decode(file);
  if (!picture && file.type && !file.type.startsWith("image/")) {
    showMessage(`“${file.name}” is not an image. The page takes ${FORMATS}, up to ${megabytes(MAX_BYTES)}.`, [again]);
    return;
  }
  const problem = picture && shapeProblem(picture);
  if (!picture || !problem) return open(file.name, file);
  const actions = [again];
  if (problem.isRegion) actions.push({ label: "Open it as a region", run: () => regions.choose(file) });
  if (Math.min(picture.width, picture.height) >= CROP) {
    const crop = async () => open(`centre of ${file.name}`, await centreOf(picture, CROP));
    actions.unshift({ label: `Use its centre (${CROP} × ${CROP})`, run: crop });
  }
  if (problem.canBeSent) actions.push({ label: "Send it as it is", run: () => open(file.name, file) });
  showMessage(problem.text, actions);
}

/** @param {string} name @param {Blob} blob */
function open(name, blob) {
  hideMessage();
  return session.open({ name, blob, headline: "" });
}
