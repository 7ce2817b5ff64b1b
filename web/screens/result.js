/** The result of a tile: verdict, viewer, classes, and the reasons to trust it. */

import { ApiError } from "/api.js";
import { announce, byId, h, skeleton } from "/dom.js";
import { balance } from "/evidence.js";
import { percent } from "/format.js";
import { historyStrip } from "/history.js";
import { chooseFile } from "/intake.js";
import { copyCurl, downloadReport } from "/keep.js";
import { hideMessage, showMessage } from "/messages.js";
import { METHODS, methodOf } from "/methods.js";
import { pictureOf } from "/pictures.js";
import { probabilityCard } from "/probabilities.js";
import { session } from "/session.js";
import { nameOf } from "/tissues.js";
import { headline, hitRate, tumourStatement, verdictCard } from "/verdict.js";
import { Viewer } from "/viewer.js";

/** @typedef {import("/types.js").Answer} Answer */
/** @typedef {import("/types.js").EvidenceMap} EvidenceMap */

/** Methods with their own button; the others are under "More". */
const SHOWN_METHODS = 3;

/**
 * Show the session's tile, at first without a result.
 * @param {HTMLElement} main
 * @returns {() => void} removes the result
 */
export function showResult(main) {
  const screen = new Result(main);
  return () => screen.leave();
}

class Result {
  question = { method: "gradcam", target: "", contrast: "" };
  /** @type {Record<string, () => void>} */
  #listeners = {
    answer: () => this.#answered(),
    failure: () => this.#failed(),
    history: () => this.#showHistory(),
  };
  #keys = (/** @type {KeyboardEvent} */ event) => this.#key(event);

  /** @param {HTMLElement} main */
  constructor(main) {
    this.viewer = new Viewer("The tile");
    this.viewer.onPoint = (point) => this.viewer.mark(point);
    this.chips = h("div", { class: "chips", role: "group", "aria-label": "Method" });
    this.legend = h("div", { class: "legend" });
    this.opacity = h("input", {
      type: "range",
      id: "opacity",
      min: 0,
      max: 1,
      step: 0.05,
      value: this.viewer.opacity,
      input: () => this.#setOpacity(Number(this.opacity.value)),
    });
    this.questions = h("div", { class: "questions" });
    this.side = h("div", { class: "side" }, h("section", { class: "card verdict" }, skeleton(3)), h("section", { class: "card" }, skeleton(9)));
    this.history = h("div");
    main.replaceChildren(
      h(
        "div",
        { class: "columns result" },
        h(
          "section",
          { class: "card picture", "aria-label": "The tile and its map" },
          this.viewer.element,
          this.chips,
          h("div", { class: "row" }, h("label", { for: "opacity" }, "Map opacity"), this.opacity, ...this.viewer.zoomButtons()),
          this.legend,
          this.questions,
        ),
        this.side,
      ),
      this.history,
    );
    for (const [name, listener] of Object.entries(this.#listeners)) session.addEventListener(name, listener);
    document.addEventListener("keydown", this.#keys);
    document.addEventListener("keyup", this.#keys);
    window.scrollTo(0, 0);
    announce("Classifying the tile");
    this.#showPicture(null);
    this.#showHistory();
    if (session.answer) this.#answered();
    if (session.failure) this.#failed();
  }

  leave() {
    for (const [name, listener] of Object.entries(this.#listeners)) session.removeEventListener(name, listener);
    document.removeEventListener("keydown", this.#keys);
    document.removeEventListener("keyup", this.#keys);
  }

  /** @param {Answer | null} answer */
  async #showPicture(answer) {
    const picture = await session.picture;
    this.viewer.show(picture, answer && (await pictureOf(answer.canonical.image, "image/png")));
  }

  #showHistory() {
    const strip = session.history.length > 1 ? historyStrip() : null;
    this.history.replaceChildren(...(strip ? [strip] : []));
  }

  #failed() {
    if (!session.failure) return;
    const actions = session.failure.isDown
      ? []
      : [{ label: "Try again", run: () => session.ask() }, { label: "Choose another", run: chooseFile }];
    showMessage(session.failure.message, actions);
    if (session.failure.isDown) return;
    this.side.replaceChildren(h("section", { class: "card verdict" }, h("h1", {}, "No answer"), h("p", {}, "The message above gives the reason.")));
  }

  #answered() {
    const { answer } = session;
    if (!answer) return;
    hideMessage();
    this.#showPicture(answer);
    this.#showHistory();
    this.question = { method: "gradcam", target: answer.prediction.code, contrast: "" };
    this.side.replaceChildren(
      verdictCard(answer),
      probabilityCard(answer, (code) => this.#ask({ target: code })),
      h(
        "p",
        { class: "actions" },
        h("button", { type: "button", class: "primary", click: () => session.close() }, "New tile"),
        h("button", { type: "button", click: () => downloadReport(this.question) }, "Download report"),
        h("a", { class: "button", href: "/compare" }, "Compare methods"),
        h("button", { type: "button", click: copyCurl }, "Copy as curl"),
      ),
      trustCard(answer),
    );
    announce([headline(answer), tumourStatement(answer)].filter(Boolean).join(". "));
    byId("verdict").focus({ preventScroll: true });
    this.#ask({});
  }

  /** Change the selected map and show it. @param {Partial<import("/types.js").Question>} change */
  async #ask(change) {
    this.question = { ...this.question, ...change };
    if (this.question.contrast === this.question.target) this.question.contrast = "";
    const asked = this.question;
    this.#showChips();
    this.#showQuestions();
    this.viewer.showMap(null);
    this.legend.replaceChildren(skeleton(1));
    try {
      const map = await session.map(asked);
      if (asked !== this.question) return;
      this.viewer.showMap(map);
      this.legend.replaceChildren(...legendOf(map));
    } catch (error) {
      if (asked !== this.question || !(error instanceof Error) || error.name === "AbortError") return;
      this.legend.replaceChildren(h("p", { class: "hint" }, "This map could not be computed."));
      showMessage(error.message, error instanceof ApiError ? [{ label: "Try again", run: () => this.#ask({}) }] : []);
    }
  }

  #showChips() {
    const isMore = METHODS.findIndex(({ name }) => name === this.question.method) >= SHOWN_METHODS;
    const chip = (/** @type {import("/methods.js").Method} */ { name, title }) =>
      h(
        "button",
        { type: "button", class: "chip", "data-method": name, "aria-pressed": String(name === this.question.method), click: () => this.#ask({ method: name }) },
        title,
      );
    const more = h("details", { class: "more", open: isMore }, h("summary", { class: "chip" }, "More"), ...METHODS.slice(SHOWN_METHODS).map(chip));
    const view = h(
      "button",
      { type: "button", class: "chip", id: "model-view", "aria-pressed": String(this.viewer.isModelView), click: () => this.#toggleModelView() },
      `Model’s view, ${session.answer?.canonical.size ?? 28} px`,
    );
    const focused = document.activeElement?.getAttribute("data-method");
    this.chips.replaceChildren(...METHODS.slice(0, SHOWN_METHODS).map(chip), view, more);
    if (focused) /** @type {HTMLElement | null} */ (this.chips.querySelector(`[data-method=${focused}]`))?.focus();
  }

  #showQuestions() {
    const { answer } = session;
    if (!answer) return;
    const codes = Object.entries(answer.probabilities).sort(([, a], [, b]) => b - a).map(([code]) => code);
    const option = (/** @type {string} */ chosen) => (/** @type {string} */ code) =>
      h("option", { value: code, selected: code === chosen }, nameOf(code));
    const target = h("select", { id: "target", change: () => this.#ask({ target: target.value }) }, ...codes.map(option(this.question.target)));
    const contrast = h(
      "select",
      { id: "contrast", change: () => this.#ask({ contrast: contrast.value }) },
      h("option", { value: "" }, "nothing"),
      ...codes.filter((code) => code !== this.question.target).map(option(this.question.contrast)),
    );
    this.questions.replaceChildren(
      h("span", {}, h("label", { for: "target" }, "Evidence for"), target),
      h("span", {}, h("label", { for: "contrast" }, "compared with"), contrast),
      h("p", { class: "hint" }, methodOf(this.question.method).meaning),
      h("p", { class: "hint" }, `The model works on ${answer.canonical.size} × ${answer.canonical.size} pixels; finer detail has no influence.`),
    );
  }

  /** @param {number} opacity */
  #setOpacity(opacity) {
    this.viewer.opacity = Math.min(1, Math.max(0, opacity));
    this.opacity.value = String(this.viewer.opacity);
    this.viewer.draw();
  }

  #toggleModelView() {
    this.viewer.isModelView = !this.viewer.isModelView;
    byId("model-view").setAttribute("aria-pressed", String(this.viewer.isModelView));
    this.viewer.draw();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const target = /** @type {HTMLElement} */ (event.target);
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key === " " && !target.closest("button, a, summary, select, input")) {
      event.preventDefault();
      this.viewer.isMapHidden = event.type === "keydown";
      this.viewer.draw();
    }
    if (event.type === "keyup" || !session.answer || target.closest("select, input:not([type=range])")) return;
    const method = METHODS[Number(event.key) - 1];
    if (method) this.#ask({ method: method.name });
    if (event.key === "+" || event.key === "=") this.#setOpacity(this.viewer.opacity + 0.1);
    if (event.key === "-") this.#setOpacity(this.viewer.opacity - 0.1);
    if (event.key === "m") this.#toggleModelView();
  }
}

/** The colours of a map and what they mean. @param {EvidenceMap} map @returns {(Node | string)[]} */
export function legendOf(map) {
  const { target, contrast } = map.question;
  const scale = h("span", { class: map.signed ? "scale both" : "scale" });
  const ends = map.signed
    ? [h("strong", {}, nameOf(contrast)), scale, h("strong", {}, nameOf(target))]
    : ["no evidence", scale, h("span", {}, "for ", h("strong", {}, nameOf(target)))];
  const drawn = [
    methodOf(map.question.method).claim,
    `full colour at ${Number(map.high.toPrecision(2))} ${map.unit}`,
    map.percentile < 100 && `clipped at the ${map.percentile}th percentile`,
    map.sigma > 0 && `smoothed (σ ${map.sigma} px of 224)`,
  ];
  return [
    h("p", { class: "ends" }, ...ends),
    h("p", { class: "hint" }, drawn.filter(Boolean).join("; ")),
    ...(map.signed ? [h("p", {}, balanceOf(map))] : []),
  ];
}

/** @param {EvidenceMap} map */
function balanceOf(map) {
  const sum = balance(map);
  const more = sum >= 0 ? map.question.target : map.question.contrast;
  return `More evidence for ${nameOf(more).toLowerCase()} than for ${nameOf(sum >= 0 ? map.question.contrast : map.question.target).toLowerCase()}.`;
}

/** @param {Answer} answer */
function trustCard(answer) {
  const { model, prediction_set: set, verdict } = answer;
  const rows = [
    ["At this confidence", hitRate(answer) || "There are no test tiles at this confidence."],
    ["Similarity to the training tiles", likeness(answer)],
    [
      "Prediction set",
      set ? `${set.codes.map(nameOf).join(", ")} (${percent(set.coverage)} coverage)` : "None, because the tile is unlike the training tiles or the model is not calibrated.",
    ],
    ...(answer.field ? [["Field of view", fieldOfView(answer.field)]] : []),
    ...(answer.fit?.verdict ? [["Picture", picture(answer.fit)]] : []),
    ["Tumour-related share", verdict.tumour_threshold === null ? percent(verdict.tumour_share) : `${percent(verdict.tumour_share)}; flagged from ${percent(verdict.tumour_threshold)}`],
    ["Model", `${model.name} ${model.version}, weights ${model.digest.slice(0, 12)}, trained on ${model.training_data}`],
    ["Answered in", `${Math.round(1000 * answer.seconds)} ms`],
  ];
  return h(
    "details",
    { class: "card trust" },
    h("summary", {}, verdict.state === "confident" ? "Why can I trust this?" : "Why can I not trust this?"),
    h("dl", {}, ...rows.map(([term, text]) => h("div", {}, h("dt", {}, term), h("dd", {}, text)))),
  );
}

/** @param {NonNullable<Answer["field"]>} field */
function fieldOfView({ microns, assumed, mpp, source }) {
  if (microns === null) return `Not known: the image is taken for a tile of ${assumed} x ${assumed} micrometres.`;
  return `${microns} x ${microns} micrometres, at ${Number(mpp?.toPrecision(3))} a pixel (${source})`;
}

/** @param {NonNullable<Answer["fit"]>} fit */
function picture({ verdict, reasons }) {
  return verdict === "fit" ? "Fit to be judged" : `${verdict === "unfit" ? "Unfit" : "Doubtful"}: ${reasons.join(", ").replaceAll("_", " ")}`;
}

/** @param {Answer} answer */
function likeness({ ood_score: score, in_distribution: isLike }) {
  if (score === null || isLike === null) return "The model is not calibrated.";
  const text = isLike ? "like most validation tiles" : "above the limit that holds for 95 % of validation tiles";
  return `Distance ${Number(score.toPrecision(3))}: ${text}.`;
}

