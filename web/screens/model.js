/** Model: accuracy, failures, and how they were measured. */

import { calibrationPlot, dotPlot, smallLine, table, wilson } from "/charts.js";
import { h, skeleton } from "/dom.js";
import { exactPercent } from "/format.js";
import { isMethod, methodOf } from "/methods.js";
import { confidence, evaluation, faithfulness, mistakes, robustness, verdict } from "/reports.js";
import { session } from "/session.js";
import { nameOf } from "/tissues.js";

/** @typedef {import("/reports.js").Evaluation} Evaluation */

/** @param {HTMLElement} main @returns {() => void} */
export function model(main) {
  let isHere = true;
  main.replaceChildren(h("section", { class: "card" }, skeleton(12)));
  Promise.all([evaluation(), confidence(), robustness(), verdict(), faithfulness()]).then(([report, calibration, changes, costs, maps]) => {
    if (!isHere) return;
    if (!report) {
      main.replaceChildren(h("h1", {}, "Model"), h("p", {}, "This server has no measured figures. `make report` creates them."));
      return;
    }
    main.replaceChildren(
      ...[overview(report), recalls(report), confusion(report), calibration && trust(calibration), costs && flags(costs), changes && sturdiness(changes), maps.length ? explanations(maps) : null, card(report)].filter(
        (section) => section !== null,
      ),
    );
  });
  return () => {
    isHere = false;
  };
}

/** @param {Evaluation} report */
function overview(report) {
  const [first, second] = mistakes(report);
  const right = Math.round(100 * report.accuracy.value);
  const confused = first ? `; it most often takes ${nameOf(first.truth).toLowerCase()} for ${nameOf(first.predicted).toLowerCase()}` : "";
  const other = session.answer && session.answer.model.digest !== report.model.digest;
  return h(
    "section",
    {},
    h("h1", {}, `Right on ${right} of 100 test tiles${confused}.`),
    other && h("p", { class: "flag" }, "These figures were measured with weights other than those on this server."),
    h(
      "p",
      { class: "lead" },
      `${exactPercent(report.accuracy.value)} of ${report.images} test tiles are right (95 % interval ${interval(report.accuracy.interval)})`,
      report.balanced && `; averaged over the nine classes, ${exactPercent(report.balanced.value)} (${interval(report.balanced.interval)})`,
      ".",
      second && ` The next most frequent mistake is ${nameOf(second.truth).toLowerCase()} taken for ${nameOf(second.predicted).toLowerCase()}.`,
    ),
  );
}

/** @param {[number, number]} ends */
function interval([low, high]) {
  return `${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)}`;
}

/** @param {Evaluation} report */
function recalls(report) {
  const sorted = [...report.classes].sort((a, b) => a.recall.value - b.recall.value);
  const dots = sorted.map(({ code, images, recall }) => {
    const [low, high] = recall.interval;
    return { label: nameOf(code), value: recall.value, low, high, note: `${exactPercent(recall.value)} of ${images}` };
  });
  const rows = sorted.map(({ code, images, recall, precision }) => [
    nameOf(code),
    String(images),
    `${exactPercent(recall.value)} (${interval(recall.interval)})`,
    `${exactPercent(precision.value)} (${interval(precision.interval)})`,
  ]);
  return h(
    "section",
    { class: "card" },
    h("h2", {}, "Which tissues it finds"),
    h("p", { class: "hint" }, "Recall of each class on the test tiles, lowest first, with 95 % intervals. Classes with few tiles have long intervals."),
    dotPlot("Share of tiles found, by class", dots),
    h("details", {}, h("summary", {}, "As a table"), table("Test tiles by class", ["Class", "Tiles", "Found (recall)", "Right when named (precision)"], rows)),
  );
}

/** @param {Evaluation} report */
function confusion(report) {
  if (!report.confusion.length) return null;
  const codes = report.classes.map(({ code }) => code);
  const worst = mistakes(report).slice(0, 2);
  const rows = report.confusion.map((counts, row) => {
    const total = Math.max(1, counts.reduce((sum, count) => sum + count, 0));
    return [nameOf(codes[row]), ...counts.map((count, column) => cell(count, count / total, row === column))];
  });
  return h(
    "section",
    { class: "card" },
    h("h2", {}, "What it takes for what"),
    h("p", {}, ...worst.map(({ truth, predicted, count, of }) => `${count} of ${of} ${nameOf(truth).toLowerCase()} tiles are taken for ${nameOf(predicted).toLowerCase()}. `)),
    table("Columns are the predicted class", ["True class", ...codes], rows),
  );
}

/** @param {number} count @param {number} share @param {boolean} isRight */
function cell(count, share, isRight) {
  const level = count === 0 ? 0 : Math.ceil(4 * share);
  return h("span", { class: `cell ${isRight ? "right" : "wrong"} level-${level}` }, count || "·");
}

/** @param {import("/reports.js").Confidence} confidence */
function trust(confidence) {
  const points = confidence.reliability.map(({ tiles, confidence: x, accuracy: y }) => {
    const [low, high] = tiles ? wilson(y, tiles) : [y, y];
    return { x, y, low, high, note: tiles ? `${tiles} tiles` : "" };
  });
  const rows = confidence.reliability.map(({ tiles, confidence: x, accuracy: y }) => [exactPercent(x), exactPercent(y), tiles === null ? "" : String(tiles)]);
  const sets = confidence.sets.map(({ promised, share, size }) => [exactPercent(promised), exactPercent(share), size.toFixed(2)]);
  return h(
    "section",
    { class: "card" },
    h("h2", {}, "How reliable its percentages are"),
    h("p", {}, "On the dotted line, tiles with a confidence of 80 % are right 80 times in 100. Lines are 95 % intervals; they are long if there are few tiles."),
    h(
      "div",
      { class: "columns" },
      calibrationPlot("Confidence and share of right answers", points, "Right: confidence", "share right"),
      h(
        "div",
        {},
        table("Test tiles by confidence", ["Mean confidence", "Right", "Tiles"], rows),
        sets.length > 0 && table("Prediction sets", ["Promised", "Hold the true class", "Mean size"], sets),
        h(
          "p",
          { class: "hint" },
          `Calibrated on ${confidence.calibratedOn}.`,
          confidence.error !== null && ` Expected calibration error ${exactPercent(confidence.error)}.`,
          confidence.inside !== null && ` ${exactPercent(1 - confidence.inside)} of test tiles are called unlike the training tiles.`,
        ),
      ),
    ),
  );
}

/** @param {import("/reports.js").VerdictCosts} costs */
function flags(costs) {
  const rows = [
    ["By the tumour-related share", costs.test],
    ["By the predicted class only", costs.byClass],
  ].map(([name, rule]) => {
    const { missed, tumour_tiles: tumour, flagged, other_tiles: others } = /** @type {import("/reports.js").Costs} */ (rule);
    return [String(name), `${missed} of ${tumour}`, `${flagged} of ${others}`];
  });
  return h(
    "section",
    { class: "card" },
    h("h2", {}, "Which tiles it flags as tumour-related"),
    h(
      "p",
      {},
      `A tile is flagged if tumour epithelium and stroma together have at least ${exactPercent(costs.threshold)}. The threshold was chosen on validation tiles, where a missed tile costs as much as ${costs.missCost} falsely flagged tiles.`,
    ),
    table("Test tiles", ["Rule", "Tumour-related tiles not flagged", "Other tiles flagged"], rows),
  );
}

/** @param {import("/reports.js").Change[]} changes */
function sturdiness(changes) {
  const reference = changes.find(({ kind }) => kind === "unchanged")?.steps[0].accuracy ?? 1;
  const charts = changes
    .filter(({ kind }) => kind !== "unchanged")
    .map(({ kind, steps }) =>
      h(
        "figure",
        {},
        h("figcaption", {}, kind),
        smallLine(
          `${kind}: ${steps.map(({ strength, accuracy }) => `${strength}: ${exactPercent(accuracy)}`).join(", ")}`,
          steps.map(({ strength, accuracy, interval: ends }) => ({ label: strength, value: accuracy, low: ends?.[0] ?? accuracy, high: ends?.[1] ?? accuracy })),
          reference,
        ),
      ),
    );
  return h(
    "section",
    { class: "card" },
    h("h2", {}, "Robustness to other scanners, files and stains"),
    h("p", {}, `Accuracy on changed test tiles, from 0 to 100 %; the dotted line shows unchanged tiles, ${exactPercent(reference)}.`),
    h("div", { class: "multiples" }, ...charts),
  );
}

/** @param {{method: string, better: Record<string, boolean>}[]} maps */
function explanations(maps) {
  const tests = [...new Set(maps.flatMap(({ better }) => Object.keys(better)))];
  const word = (/** @type {boolean | undefined} */ better) => (better === undefined ? "" : better ? "yes" : "not shown");
  const rows = maps
    .filter(({ method }) => isMethod(method))
    .map(({ method, better }) => [methodOf(method).title, ...tests.map((test) => word(better[test]))]);
  return h(
    "section",
    { class: "card" },
    h("h2", {}, "Which maps mark what the model uses"),
    h("p", {}, "A map is faithful if deleting the marked pixels lowers the score, or inserting them raises it, more than with a random map."),
    table("Better than a random map", ["Method", ...tests], rows),
  );
}

/** @param {Evaluation} report */
function card({ model: identity, classes, images }) {
  return h(
    "section",
    { class: "card" },
    h("h2", {}, "Data, training, limits"),
    h("p", {}, `${identity.name} ${identity.version}, a ResNet-18 trained on ${identity.training_data}. SHA-256 of its weights: `, h("code", {}, identity.digest)),
    h("p", {}, `It sees every tile as 28 × 28 pixels. It knows ${classes.length} tissues of the colon, stained with haematoxylin and eosin, and nothing else; other organs, stains and magnifications also get one of the nine names. It was evaluated on ${images} test tiles.`),
    h("p", {}, h("a", { href: "/reports/evaluation.json", download: "evaluation.json" }, "Download all figures (JSON)")),
  );
}
