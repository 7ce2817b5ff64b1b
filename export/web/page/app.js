/** The page's frame: loads the model, takes tiles, and shows the selected one above the table of all. */

import { Client } from "./client.js";
import { announce, byId, h } from "./dom.js";
import { chooseFiles, chooseFolder, listen } from "./drop.js";
import { showMessage } from "./messages.js";
import { workOffline } from "./offline.js";
import { resultOf } from "./result.js";
import { csvOf, tilesTable } from "./table.js";
import { Tiles } from "./tiles.js";
import { headline, tumourStatement } from "./verdict.js";

/** @typedef {import("./drop.js").NamedFile} NamedFile */
/** @typedef {import("./types.js").Example} Example */

/** The table is redrawn at most once in this time, in milliseconds. */
const REDRAW = 250;

const state = byId("state");

async function start() {
  const isOffline = await workOffline();
  const data = await (await fetch("model.json")).json();
  const client = new Client((share) => (state.textContent = `Loading the model, ${Math.round(100 * share)} %`));
  const page = new Page(new Tiles(client, data));
  listen((files) => page.take(files));
  const engine = await client.open();
  state.dataset.state = "up";
  state.textContent = `${engine}; ${isOffline ? "works offline" : "needs the network to load"}`;
  page.begin();
}

class Page {
  /** @type {NamedFile[]} dropped before the model was loaded */
  #waiting = [];
  #isReady = false;
  #isRedrawing = false;

  /** @param {Tiles} tiles */
  constructor(tiles) {
    this.tiles = tiles;
    this.result = h("div", { id: "result" });
    this.progress = h("p", { id: "progress", role: "status" });
    this.table = h("div", { id: "table" });
    this.first = firstScreen();
    byId("main").replaceChildren(this.first, this.result, this.progress, this.table);
    for (const name of ["added", "done", "removed"]) tiles.addEventListener(name, () => this.#redrawSoon());
    tiles.addEventListener("selected", () => this.#showSelected());
  }

  /** @param {NamedFile[]} files */
  take(files) {
    if (!files.length) showMessage("There is no image in what was dropped. The page reads PNG, JPEG, WebP and BMP.");
    else if (this.#isReady) this.tiles.add(files);
    else this.#waiting.push(...files);
  }

  /** The model is loaded. */
  begin() {
    this.#isReady = true;
    if (this.#waiting.length) this.tiles.add(this.#waiting);
    showExamples(this.first, (file) => this.take([file]));
  }

  #showSelected() {
    const tile = this.tiles.selected;
    if (!tile?.answer) return;
    this.result.replaceChildren(resultOf(tile));
    announce([tile.name, headline(tile.answer), tumourStatement(tile.answer)].filter(Boolean).join(". "));
  }

  #redrawSoon() {
    if (this.#isRedrawing) return;
    this.#isRedrawing = true;
    setTimeout(() => {
      this.#isRedrawing = false;
      this.#redraw();
    }, REDRAW);
  }

  #redraw() {
    const { list, done, rate } = this.tiles;
    const refused = done.filter(({ refusal }) => refusal).length;
    const isDone = done.length === list.length;
    this.first.classList.toggle("small", list.length > 0);
    if (!list.length) this.result.replaceChildren();
    const speed = rate ? `, ${rate.toFixed(1)} a second` : "";
    this.progress.textContent = list.length ? `${done.length} of ${list.length} tiles done${speed}${refused ? `; ${refused} refused` : ""}.` : "";
    this.progress.dataset.rate = isDone && rate ? String(rate) : "";
    this.#redrawTable(isDone);
  }

  /** Keeps the focus, and the place in a table that is scrolled. @param {boolean} isDone */
  #redrawTable(isDone) {
    const { list, data } = this.tiles;
    if (!list.length) return this.table.replaceChildren();
    const focused = [...this.table.querySelectorAll("button")].indexOf(/** @type {HTMLButtonElement} */ (document.activeElement));
    const download = h("button", { type: "button", disabled: !isDone, click: () => save(csvOf(list, data.codes)) }, "Download CSV");
    const clear = h("button", { type: "button", click: () => this.tiles.clear() }, "Remove all");
    this.table.replaceChildren(h("p", { class: "actions" }, download, clear), tilesTable(list, (tile) => this.#choose(tile)));
    if (focused >= 0) this.table.querySelectorAll("button")[focused]?.focus({ preventScroll: true });
  }

  /** @param {import("./tiles.js").Tile} tile */
  #choose(tile) {
    this.tiles.select(tile);
    byId("verdict").focus({ preventScroll: true });
    this.result.scrollIntoView();
  }
}

function firstScreen() {
  return h(
    "div",
    { class: "first" },
    h("h1", {}, "What tissue is this, and what did the model look at?"),
    h("p", { class: "lead" }, "The model runs in this browser. Your tiles do not leave this machine."),
    h(
      "section",
      { class: "drop", "aria-label": "Choose tiles" },
      h("p", { class: "strong" }, "Drop tiles or a folder anywhere on this page"),
      h("p", { class: "hint" }, "PNG, JPEG, WebP or BMP, up to 16 MB each. Best: 224 × 224 pixels at 20× (0.5 µm per pixel), as PNG."),
      h(
        "p",
        { class: "actions" },
        h("button", { type: "button", class: "primary", click: chooseFiles }, "Choose files"),
        h("button", { type: "button", click: chooseFolder }, "Choose a folder"),
      ),
    ),
  );
}

/** @param {HTMLElement} place @param {(file: NamedFile) => void} open */
async function showExamples(place, open) {
  /** @type {Example[]} */
  const examples = await (await fetch("examples/index.json")).json();
  const choose = async (/** @type {string} */ name) => open({ name, file: /** @type {File} */ (await (await fetch(`examples/${name}`)).blob()) });
  const items = examples.filter(({ title }) => title).map(({ file, title }) =>
    h("li", {}, h("button", { type: "button", click: () => choose(file) }, h("img", { src: `examples/${file}`, alt: "", width: 72, height: 72 }), h("span", {}, title))),
  );
  place.append(
    h("h2", {}, "Or try an example"),
    h("ul", { class: "examples" }, ...items),
    h("p", { class: "hint" }, "A network generated these tiles. They show the page, not the model's accuracy."),
  );
}

/** @param {string} csv */
function save(csv) {
  const address = URL.createObjectURL(new Blob([csv], { type: "text/csv" }));
  h("a", { href: address, download: "tiles.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

start().catch((error) => {
  state.dataset.state = "down";
  state.textContent = "Not loaded";
  showMessage(error.message);
});
