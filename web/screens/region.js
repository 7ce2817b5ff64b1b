/** Region: a region of a slide, or a slide of the server, and the map of its tissues. */

import { ApiError, fetchBlob, fetchJson, inspect } from "/api.js";
import { announce, byId, h, skeleton, svg } from "/dom.js";
import { readMap } from "/evidence.js";
import { capitalised, classes, percent } from "/format.js";
import { chooseFile, giveFilesTo } from "/intake.js";
import { save } from "/keep.js";
import { legendOf } from "/legend.js";
import { hideMessage, showMessage } from "/messages.js";
import { regions } from "/regions.js";
import { session } from "/session.js";
import { SlideViewer } from "/slide_viewer.js";
import { ABSTAINED, TissueMap } from "/tissue_map.js";
import { nameOf } from "/tissues.js";
import { picture } from "/trust.js";
import { explanation, headline } from "/verdict.js";
import { Viewer } from "/viewer.js";

/** @typedef {import("/tissue_map.js").Place} Place */
/** @typedef {import("/tissue_map.js").Share} Share */

const PLACE_HINT = "Click a place on the map, or move there with the arrow keys and press Enter.";
/** Results for other programs: a name of the server, and the text of its button. @type {[string, string][]} */
const DOWNLOADS = [
  ["map.geojson", "GeoJSON for QuPath"],
  ["map.json", "JSON"],
  ["heat.ome.tiff", "Cells as OME-TIFF"],
];
const FORMATS = "PNG, JPEG, TIFF, BMP or WebP, up to 134 million pixels and 64 MB";

/** @param {HTMLElement} main @returns {() => void} */
export function region(main) {
  /** @type {Work | null} */
  let work = null;
  const show = () => {
    work?.leave();
    work = null;
    history.replaceState(null, "", regions.job ? `/region?job=${regions.job.id}` : "/region");
    if (regions.job) work = new Work(main);
    else showFirst(main);
  };
  regions.addEventListener("job", show);
  giveFilesTo(([file]) => begin(file));
  const asked = new URLSearchParams(location.search).get("job");
  show();
  if (regions.file && !regions.job) begin(regions.file);
  else if (asked && !regions.job) regions.resume(asked).catch(fail);
  return () => {
    regions.removeEventListener("job", show);
    giveFilesTo(null);
    work?.leave();
  };
}

/** @param {HTMLElement} main */
function showFirst(main) {
  const slides = h("div");
  main.replaceChildren(
    h("h1", {}, "Which tissues are in this region?"),
    h("p", { class: "lead" }, "Give it a region of an H&E-stained colorectal slide. You get a map of nine tissues, their areas, and an explanation of each place."),
    h(
      "section",
      { class: "drop", "aria-label": "Choose a region" },
      h("p", { class: "strong" }, "Drop a region anywhere on this page"),
      h("p", { class: "hint" }, `${FORMATS}. At 4 µm per pixel that is a section of 16 mm.`),
      mppForm(),
      h("p", { class: "actions" }, h("button", { type: "button", class: "primary", click: chooseFile }, "Choose a file")),
    ),
    slides,
    h("p", { class: "hint" }, "The server keeps the image and its map until you choose “New region”, at most as long as its operator allows (a day by default)."),
  );
  fillSlides(slides);
}

/** The slides of the server, if it has any. @param {HTMLElement} section */
async function fillSlides(section) {
  const { slides } = await fetchJson("/slides").catch(() => ({ slides: [] }));
  if (!slides.length) return;
  const choice = h("select", { id: "slide" }, ...slides.map((/** @type {string} */ name) => h("option", { value: name }, name)));
  const open = h("button", { type: "button", click: () => start(null, { slide: choice.value }, "") }, "Open the slide");
  section.replaceChildren(h("h2", {}, "Or open a slide of this server"), h("p", { class: "row" }, h("label", { for: "slide" }, "Slide"), choice, open));
}

/** Start with a file and the size of its pixels, if the visitor gave it. @param {File} file */
async function begin(file) {
  const field = /** @type {HTMLInputElement | null} */ (document.getElementById("mpp"));
  const mpp = field?.value ?? "";
  if (regions.job) await regions.close();
  regions.file = file;
  await start(file, {}, mpp);
}

/** @param {File | null} file @param {Record<string, string>} options @param {string} typed micrometres per pixel */
async function start(file, options, typed) {
  hideMessage();
  const mpp = typed.trim().replace(",", ".");
  announce("Sending the region");
  await regions.start(file, mpp ? { ...options, mpp } : options).catch(fail);
}

/** @param {unknown} error */
function fail(error) {
  if (!(error instanceof ApiError)) throw error;
  showMessage(error.message);
}

/** A job: its progress, then its map. */
class Work {
  viewer = new SlideViewer();
  /** @type {TissueMap | null} */
  map = null;
  #requests = new AbortController();
  #progressed = () => this.#show();
  #isShown = false;

  /** @param {HTMLElement} main */
  constructor(main) {
    this.viewer.onPlace = (place, isChosen) => this.#select(place, isChosen);
    this.side = h("div", { class: "side" });
    this.controls = h("div", {});
    const picture = h("section", { class: "card picture", "aria-label": "The region and its map" }, this.viewer.element, this.controls);
    main.replaceChildren(h("div", { class: "columns result region" }, picture, this.side));
    regions.addEventListener("progress", this.#progressed);
    this.#showPicture();
    this.#show();
  }

  leave() {
    regions.removeEventListener("progress", this.#progressed);
    this.#requests.abort();
    this.viewer.close();
  }

  async #showPicture() {
    try {
      const shape = await regions.shape();
      if (await this.viewer.open(regions.picture, shape)) return;
      this.viewer.element.replaceChildren(h("p", { class: "hint" }, "This server has no OpenSeadragon, so the picture is not shown. `make serve` installs it if npm is there."));
    } catch {
      // A file that cannot be shown has no map either; the job says why.
    }
  }

  #show() {
    const { job } = regions;
    if (job?.state === "done") this.#showResult();
    else if (job?.state === "failed") this.#showFailure();
    else this.#showProgress();
  }

  #showProgress() {
    const { job } = regions;
    const { done, total } = job?.progress ?? { done: 0, total: 0 };
    const text = job?.state === "queued" ? "Waiting for other regions" : total ? `${done} of ${total} tiles` : "Looking for tissue";
    const bar = h("progress", { max: total || 1, value: total ? done : null, "aria-label": "Progress" });
    if (!this.#isShown) announce("Classifying the region");
    this.#isShown = true;
    const cancel = this.side.querySelector("button") ?? h("button", { type: "button", click: () => regions.close() }, "Cancel");
    const card = h("section", { class: "card verdict" }, h("h1", {}, "Classifying the region"), h("p", {}, text), h("p", { class: "row" }, bar));
    const focused = document.activeElement === cancel;
    this.side.replaceChildren(card, h("p", { class: "actions" }, cancel));
    if (focused) cancel.focus();
  }

  #showFailure() {
    const error = regions.job?.error;
    const { file } = regions;
    const again = file && error?.field === "mpp" ? mppForm(() => begin(file)) : null;
    this.side.replaceChildren(
      h("section", { class: "card verdict unreliable" }, h("h1", { id: "verdict", tabindex: "-1" }, "No map"), h("p", {}, error?.message ?? ""), again),
      h("p", { class: "actions" }, newRegion()),
    );
    announce(`No map. ${error?.message ?? ""}`);
    const field = document.getElementById("mpp") ?? byId("verdict");
    field.focus({ preventScroll: true });
  }

  async #showResult() {
    try {
      const [json, cells] = await Promise.all([regions.map(), regions.cells()]);
      this.map = new TissueMap(json, cells);
    } catch (error) {
      if (!this.#requests.signal.aborted) fail(error);
      return;
    }
    this.viewer.showMap(this.map);
    this.controls.replaceChildren(...this.#controls());
    this.detail = h("section", { class: "card", "aria-labelledby": "place" }, h("h2", { id: "place" }, "One tile"), h("p", { class: "hint" }, PLACE_HINT));
    const { composition } = this.map.json;
    const title = mainTissues(composition);
    this.side.replaceChildren(
      h("section", { class: "card verdict" }, h("h1", { id: "verdict", tabindex: "-1" }, title), h("p", {}, areas(composition))),
      this.detail,
      h("section", { class: "card" }, compositionTable(this.map, (code, isShown) => this.#toggle(code, isShown))),
      h("p", { class: "actions" }, newRegion(), ...DOWNLOADS.map(([name, text]) => download(name, text))),
      h("p", { class: "hint" }, this.map.json.disclaimer),
    );
    announce(`${title}. ${areas(composition)}`);
    byId("verdict").focus({ preventScroll: true });
  }

  #controls() {
    const opacity = h("input", { type: "range", id: "opacity", min: 0, max: 1, step: 0.05, value: this.viewer.opacity, input: () => this.#draw({ opacity: Number(opacity.value) }) });
    const fine = h("input", { type: "checkbox", id: "fine", change: () => this.#draw({ isFine: fine.checked }) });
    return [
      h("div", { class: "row" }, h("label", { for: "opacity" }, "Map opacity"), opacity, ...this.viewer.zoomButtons()),
      this.map?.cells && h("label", { class: "choice" }, fine, "Cells of 16 µm instead of tiles of 112 µm"),
      h("p", { class: "hint" }, "Slanted lines: the model is uncertain, or the tile is unlike the training tiles. Such tiles are part of no tissue’s area."),
    ].filter((part) => part !== null && part !== undefined);
  }

  /** @param {{opacity?: number, isFine?: boolean}} change */
  #draw(change) {
    Object.assign(this.viewer, change);
    this.viewer.draw();
  }

  /** @param {string} code @param {boolean} isShown */
  #toggle(code, isShown) {
    if (isShown) this.viewer.hidden.delete(code);
    else this.viewer.hidden.add(code);
    this.viewer.draw();
  }

  /** Show a tile's class, and with `isChosen` its explanation. @param {Place} place @param {boolean} isChosen */
  async #select(place, isChosen) {
    if (!this.map || !this.detail) return;
    this.#requests.abort();
    this.#requests = new AbortController();
    this.viewer.select(place);
    const tile = this.map.tile(place);
    const where = `Row ${place.row + 1}, column ${place.column + 1}`;
    const text = tile ? tileText(tile, this.map.json.classes) : "Glass: no tissue to classify.";
    const title = h("h2", { id: "place" }, tile ? tileTitle(tile) : "Glass");
    this.detail.replaceChildren(h("p", { class: "hint" }, where), title, h("p", {}, text));
    announce(`${where}: ${title.textContent}. ${text}`);
    if (tile && isChosen) await this.#explain(this.map.boxOf(place), tile.class, this.#requests.signal);
  }

  /** @param {import("/tissue_map.js").Rectangle} box @param {string} code @param {AbortSignal} signal */
  async #explain(box, code, signal) {
    const holder = h("div", {}, skeleton(4));
    this.detail?.append(holder);
    try {
      const query = new URLSearchParams(Object.entries(box).map(([name, value]) => [name, String(value)]));
      const blob = await fetchBlob(`${regions.picture}/place?${query}`, signal);
      const answer = await inspect(blob, code, signal);
      const map = await readMap(answer.explanations[0]);
      const viewer = new Viewer("The tile and its map");
      viewer.onPoint = (point) => viewer.mark(point);
      const open = () => session.open({ name: "tile of a region", blob, headline: "" });
      const button = h("button", { type: "button", click: open }, "Open this tile in Analyse");
      holder.replaceChildren(viewer.element, h("div", { class: "legend" }, ...legendOf(map)), h("p", {}, explanation(answer)), h("p", { class: "actions" }, button));
      viewer.show(await createImageBitmap(blob), null);
      viewer.showMap(map);
      announce(`${headline(answer)}. ${explanation(answer)}`);
    } catch (error) {
      if (signal.aborted) return;
      holder.replaceChildren(h("p", { class: "hint" }, "This tile could not be explained."));
      fail(error);
    }
  }
}

function newRegion() {
  return h("button", { type: "button", class: "primary", click: () => regions.close() }, "New region");
}

/** @param {string} name @param {string} text */
function download(name, text) {
  const click = async () => {
    const blob = await fetchBlob(regions.job?.links[name] ?? "").catch(fail);
    if (blob) save(blob, name);
  };
  return h("button", { type: "button", click }, text);
}

/** @param {Record<string, Share>} shares @returns {[string, Share][]} those that occur, the largest first */
function ordered(shares) {
  return Object.entries(shares)
    .filter(([, { tiles }]) => tiles)
    .sort(([, one], [, other]) => other.tiles - one.tiles);
}

/** The two largest tissues as a heading. @param {import("/tissue_map.js").MapJson["composition"]} composition */
function mainTissues({ classes: shares, abstained }) {
  if (abstained.share > 0.5) return "Mostly uncertain";
  const most = ordered(shares).slice(0, 2);
  if (!most.length) return "No tissue that the model is sure about";
  return capitalised(most.map(([code, { share }]) => `${nameOf(code).toLowerCase()} ${percent(share)}`).join(", "));
}

/** @param {import("/tissue_map.js").MapJson["composition"]} composition */
function areas({ tissue, abstained, glass_mm2: glass }) {
  const unsure = abstained.tiles ? `uncertain: ${percent(abstained.share)} of it` : "none of it uncertain";
  return `Tissue: ${area(tissue.mm2)}, ${unsure}; glass: ${area(glass)}.`;
}

/** @param {number} mm2 */
function area(mm2) {
  return `${mm2 > 0 && mm2 < 0.1 ? mm2.toFixed(3) : mm2.toFixed(2)} mm²`;
}

/** @param {TissueMap} map @param {(code: string, isShown: boolean) => void} toggle */
function compositionTable(map, toggle) {
  const { classes: shares, abstained, tissue } = map.json.composition;
  const row = (/** @type {string} */ code, /** @type {string} */ name, /** @type {Share} */ share) => {
    const box = h("input", { type: "checkbox", checked: true, change: () => toggle(code, box.checked) });
    const label = h("label", { class: "choice" }, box, swatch(map.colour(code)), name);
    return h("tr", {}, h("th", { scope: "row" }, label), h("td", {}, area(share.mm2)), h("td", {}, percent(share.share)));
  };
  const rows = ordered(shares).map(([code, share]) => row(code, nameOf(code), share));
  if (abstained.tiles) rows.push(row(ABSTAINED, "Uncertain", abstained));
  const sum = h("tr", {}, h("th", { scope: "row" }, "All tissue"), h("td", {}, area(tissue.mm2)), h("td", {}, ""));
  return h(
    "table",
    { class: "composition" },
    h("caption", {}, "Composition; a tick shows the tissue on the map"),
    h("thead", {}, h("tr", {}, ...["Tissue", "Area", "Share"].map((text) => h("th", { scope: "col" }, text)))),
    h("tbody", {}, ...rows, sum),
  );
}

/** @param {string | null} colour null for the pattern of uncertain tiles */
function swatch(colour) {
  const circle = svg("rect", { width: 16, height: 16, rx: 3, ...(colour ? { fill: colour } : { class: "hatched" }) });
  const line = colour ? [] : [svg("path", { d: "M-2 10 10 -2M2 18 18 2M-2 18 18 -2", class: "lines" })];
  return svg("svg", { viewBox: "0 0 16 16", width: 16, height: 16, class: "swatch", "aria-hidden": "true" }, circle, ...line);
}

/** @param {import("/tissue_map.js").MapTile} tile */
function tileTitle(tile) {
  if (tile.state === "unreliable") return "Unlike the training tiles";
  return tile.state === "uncertain" ? `Uncertain: ${classes(tile.prediction_set.length ? tile.prediction_set : [tile.class])}` : nameOf(tile.class);
}

/** The three most probable classes, and what is wrong with the picture. @param {import("/tissue_map.js").MapTile} tile @param {{code: string}[]} all */
function tileText(tile, all) {
  const shares = all.map(({ code }, index) => ({ code, share: tile.probabilities[index] })).sort((one, other) => other.share - one.share);
  const largest = shares.slice(0, 3).map(({ code, share }) => `${nameOf(code)} ${percent(share)}`);
  const isFit = tile.fit === null || tile.fit === "fit";
  return `${largest.join(", ")}.${isFit ? "" : ` ${picture({ verdict: tile.fit, reasons: tile.fit_reasons })}.`}`;
}

/** The field for the size of a pixel. @param {() => void} [submit] with a button that starts again */
function mppForm(submit) {
  const field = h("input", { id: "mpp", type: "text", inputmode: "decimal", size: 6, autocomplete: "off", "aria-describedby": "mpp-hint" });
  const begins = (/** @type {Event} */ event) => {
    event.preventDefault();
    submit?.();
  };
  return h(
    "form",
    { class: "row", submit: begins },
    h("label", { for: "mpp" }, "Micrometres per pixel"),
    field,
    submit ? h("button", { class: "primary" }, "Start again") : h("span", { id: "mpp-hint", class: "hint" }, "Leave it empty if the file states it."),
  );
}
