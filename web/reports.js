/**
 * The measured figures, which `make report` writes to docs/evaluation/. Readers return null for missing figures, and the page
 * omits them.
 */

/**
 * @typedef {object} Figure A share with its 95 % interval.
 * @property {number} value
 * @property {[number, number]} interval
 *
 * @typedef {object} ClassFigures
 * @property {string} code
 * @property {number} images
 * @property {Figure} recall
 * @property {Figure} precision
 *
 * @typedef {object} Evaluation
 * @property {{name: string, version: string, digest: string, training_data: string}} model
 * @property {number} images
 * @property {Figure} accuracy
 * @property {Figure | null} balanced
 * @property {ClassFigures[]} classes
 * @property {number[][]} confusion rows are true classes
 * @property {Record<string, number>} trainingMix shares by class
 *
 * @typedef {object} Confidence
 * @property {string} calibratedOn
 * @property {{tiles: number | null, share: number, confidence: number, accuracy: number}[]} reliability
 * @property {{promised: number, share: number, size: number}[]} sets
 * @property {number | null} error expected calibration error
 * @property {number | null} inside share of test tiles within the out-of-distribution threshold
 *
 * @typedef {{tumour_tiles: number, missed: number, other_tiles: number, flagged: number}} Costs
 *
 * @typedef {object} VerdictCosts
 * @property {number} threshold
 * @property {number} missCost
 * @property {Costs} test
 * @property {Costs} byClass
 *
 * @typedef {object} Change
 * @property {string} kind
 * @property {{strength: string, accuracy: number, interval: [number, number] | null, inDistribution: number | null}[]} steps
 */

/** @type {Map<string, Promise<any>>} */
const files = new Map();

/** @param {string} name */
function read(name) {
  let file = files.get(name);
  if (!file) {
    file = fetch(`/reports/${name}.json`).then((response) => (response.ok ? response.json() : null), () => null);
    files.set(name, file);
  }
  return file;
}

/** @param {any} found @returns {Figure | null} */
function figure(found) {
  if (typeof found?.value !== "number" || !Array.isArray(found.interval)) return null;
  return { value: found.value, interval: [found.interval[0], found.interval[1]] };
}

/** The official test split. @returns {Promise<Evaluation | null>} */
export async function evaluation() {
  const report = await read("evaluation");
  const test = report?.splits?.test;
  const accuracy = figure(test?.accuracy);
  if (!accuracy || !test.classes || !report.model) return null;
  const classes = Object.entries(test.classes).flatMap(([code, entry]) => {
    const { images, ...found } = /** @type {any} */ (entry);
    const [recall, precision] = [figure(found.recall), figure(found.precision)];
    return recall && precision ? [{ code, images, recall, precision }] : [];
  });
  const training = report.classes?.images?.train ?? {};
  const total = Object.values(training).reduce((sum, count) => sum + count, 0);
  return {
    model: report.model,
    images: test.images,
    accuracy,
    balanced: figure(test.balanced_accuracy),
    classes,
    confusion: test.confusion_matrix ?? [],
    trainingMix: Object.fromEntries(Object.entries(training).map(([code, count]) => [code, count / total])),
  };
}

/** @returns {Promise<Confidence | null>} */
export async function confidence() {
  const report = await read("confidence");
  if (!Array.isArray(report?.reliability)) return null;
  // Older reports compare several sources of calibration tiles.
  const fitted = report.sources?.[report.kept] ?? report;
  const tiles = report.test_tiles ?? Number.parseInt(report.judged_on ?? "", 10);
  const sets = Object.entries(fitted.sets ?? {}).flatMap(([promised, kinds]) => {
    const found = /** @type {any} */ (kinds)?.LAC;
    const share = found?.share ?? found?.coverage;
    return typeof share === "number" ? [{ promised: Number(promised), share, size: found.size }] : [];
  });
  return {
    calibratedOn: report.calibrated_on ?? report.kept ?? "",
    reliability: report.reliability.map((/** @type {any} */ row) => ({
      ...row,
      tiles: row.tiles ?? (Number.isFinite(tiles) ? Math.round(row.share * tiles) : null),
    })),
    sets,
    error: fitted.calibration_error?.after ?? null,
    inside: report.out_of_distribution?.test_tiles_inside ?? null,
  };
}

/** Accuracy under changes of the image, the unchanged tiles first. @returns {Promise<Change[] | null>} */
export async function robustness() {
  const changes = (await read("robustness"))?.changes;
  if (!changes) return null;
  return Object.entries(changes).map(([kind, steps]) => ({
    kind,
    steps: Object.entries(/** @type {Record<string, any>} */ (steps))
      .map(([strength, found]) => ({
        strength,
        accuracy: found.accuracy,
        interval: found.interval ?? null,
        inDistribution: found.in_distribution ?? null,
      }))
      // JavaScript orders integer keys before other keys.
      .sort((a, b) => Number.parseFloat(a.strength) - Number.parseFloat(b.strength) || 0),
  }));
}

/** The costs of flagging tiles by their tumour-related probability. @returns {Promise<VerdictCosts | null>} */
export async function verdict() {
  const report = await read("verdict");
  if (!report?.test || !report.test_by_predicted_class) return null;
  return { threshold: report.threshold, missCost: report.miss_cost, test: report.test, byClass: report.test_by_predicted_class };
}

/**
 * Whether each method marks what the model uses better than a random map, by the test: what happens to the score if the
 * marked pixels are deleted, or inserted into an empty image.
 * @returns {Promise<{method: string, better: Record<string, boolean>}[]>}
 */
export async function faithfulness() {
  const methods = (await read("explanations"))?.methods ?? {};
  return Object.entries(methods).flatMap(([method, tests]) => {
    const better = Object.entries(/** @type {Record<string, any>} */ (tests)).flatMap(([test, found]) => {
      const value = found?.against?.["random map"]?.better;
      return typeof value === "boolean" ? [[test, value]] : [];
    });
    return better.length ? [{ method, better: Object.fromEntries(better) }] : [];
  });
}

/** How often each class is mistaken for others, the most frequent first. @param {Evaluation} report */
export function mistakes({ confusion, classes }) {
  const found = [];
  for (const [row, counts] of confusion.entries()) {
    for (const [column, count] of counts.entries()) {
      if (row === column || !count || !classes[row] || !classes[column]) continue;
      found.push({ truth: classes[row].code, predicted: classes[column].code, count, of: classes[row].images });
    }
  }
  return found.sort((a, b) => b.count / b.of - a.count / a.of);
}

/** The example tiles. @returns {Promise<import("/types.js").Example[]>} */
export async function examples() {
  const response = await fetch("/examples/index.json").catch(() => null);
  return response?.ok ? response.json() : [];
}
