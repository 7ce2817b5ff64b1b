/** Compare: several methods side by side with one cursor, for one class or one class against another. */

import { h, skeleton } from "/dom.js";
import { agreement } from "/evidence.js";
import { list } from "/format.js";
import { historyStrip } from "/history.js";
import { chooseFile } from "/intake.js";
import { legendOf } from "/legend.js";
import { showMessage } from "/messages.js";
import { GROUPS, isMethod, METHODS, methodOf } from "/methods.js";
import { examples, faithfulness } from "/reports.js";
import { openExample } from "/screens/analyse.js";
import { session } from "/session.js";
import { nameOf, TISSUES } from "/tissues.js";
import { headline } from "/verdict.js";
import { Viewer } from "/viewer.js";

/** @typedef {import("/types.js").EvidenceMap} EvidenceMap */
/** @typedef {{methods: string[], target: string, contrast: string}} View */

const DEFAULT_METHODS = ["gradcam", "occlusion", "integrated_gradients"];

/** @param {HTMLElement} main @returns {() => void} */
export function compare(main) {
  const screen = new Compare(main);
  return () => screen.leave();
}

class Compare {
  #show = () => this.show();
  /** @type {Viewer[]} */
  viewers = [];
  isChoosing = false;

  /** @param {HTMLElement} main */
  constructor(main) {
    this.main = main;
    this.view = readView(new URLSearchParams(location.search));
    session.addEventListener("answer", this.#show);
    session.addEventListener("tile", this.#show);
    const example = new URLSearchParams(location.search).get("example");
    if (example && !session.tile) this.#openExample(example);
    this.show();
  }

  leave() {
    session.removeEventListener("answer", this.#show);
    session.removeEventListener("tile", this.#show);
  }

  /** @param {string} name */
  async #openExample(name) {
    const example = (await examples()).find(({ file }) => file.toLowerCase().startsWith(`${name.toLowerCase()}.`));
    if (example) await openExample(example.file);
  }

  show() {
    const { answer } = session;
    if (!session.tile) this.main.replaceChildren(...this.#withoutTile());
    else if (!answer) this.main.replaceChildren(h("h1", {}, "Compare methods"), skeleton(9));
    else {
      const ordered = order(answer.probabilities);
      this.view.target ||= ordered[0];
      if (this.view.contrast === this.view.target) this.view.contrast = "";
      this.grid = h("div", { class: "grid-of-maps" });
      this.summary = h("p", { class: "note", role: "status" });
      this.main.replaceChildren(
        h("h1", {}, "Compare methods"),
        h("p", {}, `${headline(answer)}. `, h("a", { href: "/" }, "Back to the result")),
        this.#questions(ordered),
        this.#choices(),
        this.summary,
        this.grid,
        historyStrip() ?? "",
      );
      this.#draw();
    }
  }

  #withoutTile() {
    const { methods, target, contrast } = this.view;
    const question = target ? `; evidence for ${nameOf(target).toLowerCase()}${contrast ? ` compared with ${nameOf(contrast).toLowerCase()}` : ""}` : "";
    return [
      h("h1", {}, "Compare methods"),
      h("p", { class: "lead" }, `This address selects ${list(methods.map((name) => methodOf(name).title), "and")}${question}. Add a tile to see it.`),
      h("p", { class: "actions" }, h("button", { type: "button", class: "primary", click: chooseFile }, "Choose a file"), h("a", { class: "button", href: "/" }, "Try an example")),
    ];
  }

  /** @param {string[]} ordered codes, most probable first */
  #questions(ordered) {
    const { target, contrast } = this.view;
    const select = (/** @type {string} */ id, /** @type {string} */ chosen, /** @type {boolean} */ none) =>
      h(
        "select",
        { id, change: (/** @type {Event} */ event) => this.#set({ [id]: /** @type {HTMLSelectElement} */ (event.target).value }) },
        none && h("option", { value: "" }, "nothing"),
        ...ordered.map((code) => h("option", { value: code, selected: code === chosen }, nameOf(code))),
      );
    const [first, second] = ordered;
    const preset = (/** @type {string} */ one, /** @type {string} */ other) =>
      h("button", { type: "button", click: () => this.#set({ target: one, contrast: other }) }, `${nameOf(one)} against ${nameOf(other).toLowerCase()}`);
    const isStroma = ordered.slice(0, 3).some((code) => code === "STR" || code === "MUS");
    const isSame = [first, second].includes("STR") && [first, second].includes("MUS");
    return h(
      "div",
      { class: "questions card" },
      h("span", {}, h("label", { for: "target" }, "Evidence for"), select("target", target, false)),
      h("span", {}, h("label", { for: "contrast" }, "compared with"), select("contrast", contrast, true)),
      h("button", { type: "button", disabled: !contrast, click: () => this.#set({ target: contrast, contrast: target }) }, "Swap"),
      preset(first, second),
      isStroma && !isSame && preset("STR", "MUS"),
    );
  }

  #choices() {
    const groups = Object.entries(GROUPS).map(([group, title]) =>
      h(
        "fieldset",
        {},
        h("legend", {}, title),
        ...METHODS.filter((method) => method.group === group).map(({ name, title: text }) =>
          h("label", { class: "choice" }, h("input", { type: "checkbox", name, checked: this.view.methods.includes(name), change: () => this.#toggle(name) }), text),
        ),
      ),
    );
    this.chosen = h("summary");
    this.#nameMethods();
    const toggle = (/** @type {Event} */ event) => {
      this.isChoosing = /** @type {HTMLDetailsElement} */ (event.target).open;
    };
    return h("details", { class: "card trust", open: this.isChoosing, toggle }, this.chosen, h("div", { class: "choices" }, ...groups));
  }

  #nameMethods() {
    const titles = this.view.methods.map((name) => methodOf(name).title);
    if (this.chosen) this.chosen.textContent = `Methods: ${list(titles, "and") || "none"}`;
  }

  /** @param {string} name */
  #toggle(name) {
    const { methods } = this.view;
    this.view.methods = METHODS.map((method) => method.name).filter((item) => (item === name ? !methods.includes(item) : methods.includes(item)));
    this.#nameMethods();
    this.#draw();
  }

  /** @param {Partial<View>} change */
  #set(change) {
    this.view = { ...this.view, ...change };
    this.show();
  }

  async #draw() {
    writeView(this.view);
    const { methods, target, contrast } = this.view;
    this.viewers = [];
    const places = methods.map((method) => this.#place(method, target, contrast));
    this.grid?.replaceChildren(...places.map(({ element }) => element));
    if (this.summary) this.summary.textContent = "";
    const maps = await Promise.all(places.map(({ map }) => map));
    if (methods !== this.view.methods || !this.summary) return;
    this.summary.textContent = inAgreement(maps.filter((map) => map !== null));
  }

  /**
   * A panel for one map, which loads it.
   * @param {string} name
   * @param {string} target
   * @param {string} contrast
   * @returns {{element: HTMLElement, map: Promise<EvidenceMap | null>}}
   */
  #place(name, target, contrast) {
    const method = methodOf(name);
    const viewer = new Viewer(`${method.title}: evidence for ${nameOf(target)}${contrast ? ` compared with ${nameOf(contrast)}` : ""}`);
    viewer.onPoint = (point) => this.viewers.forEach((other) => other.mark(point));
    this.viewers.push(viewer);
    session.picture.then((picture) => viewer.show(picture, null));
    const below = h("div", { class: "legend" }, skeleton(2));
    const map = session.map({ method: name, target, contrast }).then(
      (map) => {
        viewer.showMap(map);
        below.replaceChildren(...legendOf(map));
        return map;
      },
      (error) => {
        below.replaceChildren(h("p", { class: "hint" }, "This map could not be computed."));
        if (error.name !== "AbortError") showMessage(error.message);
        return null;
      },
    );
    const evidence = h("p", { class: "hint" });
    faithfulness().then((tests) => {
      const better = Object.entries(tests.find(({ method: item }) => item === name)?.better ?? {});
      const passed = better.filter(([, value]) => value).map(([test]) => test);
      if (!better.length) return;
      evidence.textContent = passed.length
        ? `Measured: better than a random map by ${list(passed, "and")}.`
        : "Measured: not shown to be better than a random map.";
    });
    const title = [h("h2", {}, method.title), h("p", { class: "pill" }, method.claim)];
    return { element: h("article", { class: "card", "data-method": name }, ...title, viewer.element, below, h("p", { class: "hint" }, method.meaning), evidence), map };
  }
}

/** The agreement of the maps as text. @param {EvidenceMap[]} maps */
function inAgreement(maps) {
  const pairs = maps.flatMap((one, index) => maps.slice(index + 1).map((other) => ({ one, other, value: agreement(one, other) })));
  if (!pairs.length) return "";
  pairs.sort((a, b) => b.value - a.value);
  const text = (/** @type {typeof pairs[0]} */ { one, other, value }) =>
    `${methodOf(one.question.method).title} and ${methodOf(other.question.method).title} (${value.toFixed(2)})`;
  if (pairs.length === 1) return `Agreement (rank correlation): ${text(pairs[0])}.`;
  return `Agreement (rank correlation, 1 is the same order): most ${text(pairs[0])}, least ${text(pairs[pairs.length - 1])}.`;
}

/** @param {Record<string, number>} probabilities */
function order(probabilities) {
  return Object.entries(probabilities).sort(([, a], [, b]) => b - a).map(([code]) => code);
}

/** The view in a URL. Unknown values are ignored. @param {URLSearchParams} query @returns {View} */
function readView(query) {
  const code = (/** @type {string} */ name) => TISSUES.find((tissue) => tissue.code === query.get(name)?.toUpperCase())?.code ?? "";
  const methods = (query.get("methods") ?? "").split(",").filter(isMethod);
  return { methods: methods.length ? methods : DEFAULT_METHODS, target: code("target"), contrast: code("contrast") };
}

/** Write the view into the URL, so that it can be shared. @param {View} view */
function writeView({ methods, target, contrast }) {
  const query = new URLSearchParams({ methods: methods.join(","), target, ...(contrast ? { contrast } : {}) });
  history.replaceState(null, "", `/compare?${query}`);
}
