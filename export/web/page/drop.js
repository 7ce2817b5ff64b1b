/** Accepts chosen, dropped and pasted files, and the images in dropped folders. */

import { byId } from "./dom.js";

/** @typedef {{name: string, file: File}} NamedFile the name has the path within a folder */

/** Of a folder, only these files; of chosen and dropped files, all. */
const IMAGE = /\.(png|jpe?g|bmp|webp|tiff?)$/i;

export function chooseFiles() {
  byId("files").click();
}

export function chooseFolder() {
  byId("folder").click();
}

/** @param {(files: NamedFile[]) => void} take */
export function listen(take) {
  for (const id of ["files", "folder"]) {
    const input = /** @type {HTMLInputElement} */ (byId(id));
    input.addEventListener("change", () => {
      take([...(input.files ?? [])].map((file) => ({ name: file.webkitRelativePath || file.name, file })).filter(isWanted));
      input.value = "";
    });
  }
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) take(files.map((file) => ({ name: file.name, file })));
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dropping");
  });
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    // The list of items is emptied when this function returns, so entries are taken at once.
    const entries = [...(event.dataTransfer?.items ?? [])].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
    take((await Promise.all(entries.map((entry) => filesIn(entry)))).flat());
  });
}

/** @param {NamedFile} named */
function isWanted({ name }) {
  return !name.includes("/") || IMAGE.test(name);
}

/** @param {FileSystemEntry} entry @returns {Promise<NamedFile[]>} by name */
async function filesIn(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => /** @type {FileSystemFileEntry} */ (entry).file(resolve, reject));
    return [{ name: entry.fullPath.slice(1), file }].filter(isWanted);
  }
  const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
  /** @type {FileSystemEntry[]} */
  const entries = [];
  // One call returns at most a hundred entries, and none at the end.
  for (let part = null; part === null || part.length; entries.push(...part)) {
    part = /** @type {FileSystemEntry[]} */ (await new Promise((resolve, reject) => reader.readEntries(resolve, reject)));
  }
  entries.sort((a, b) => (a.name < b.name ? -1 : 1));
  return (await Promise.all(entries.map((item) => filesIn(item)))).flat();
}
