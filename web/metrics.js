/** Parses the server's metrics from Prometheus' text format. */

/**
 * @typedef {object} Sample
 * @property {string} name
 * @property {Record<string, string>} labels
 * @property {number} value
 *
 * @typedef {object} Load
 * @property {number} requests
 * @property {number} errors answers with a status of 400 or more
 * @property {number | null} p50 seconds that half of the answers without an error took at most
 * @property {number | null} p95 the same for 95 %
 *
 * @typedef {object} Snapshot
 * @property {number} time seconds
 * @property {Record<"predictions" | "explanations", Load>} verbs
 * @property {number} hits costly maps from the cache
 * @property {number} misses
 * @property {Record<string, number>} classes answers by class
 */

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** @param {string} text @returns {Sample[]} */
export function parse(text) {
  return text.split("\n").flatMap((line) => {
    const match = LINE.exec(line);
    if (!match) return [];
    const labels = Object.fromEntries([...(match[2] ?? "").matchAll(LABEL)].map(([, name, value]) => [name, value]));
    return [{ name: match[1], labels, value: Number(match[3]) }];
  });
}

/** @param {Sample[]} samples @param {number} time @returns {Snapshot} */
export function snapshot(samples, time) {
  const cache = (/** @type {string} */ result) => sum(samples, "pathmnist_explanation_cache_total", { result });
  const classes = samples.filter(({ name }) => name === "pathmnist_predicted_class_total");
  return {
    time,
    verbs: { predictions: load(samples, "predictions"), explanations: load(samples, "explanations") },
    hits: cache("hit"),
    misses: cache("miss"),
    classes: Object.fromEntries(classes.map(({ labels, value }) => [labels.code, value])),
  };
}

/** @param {Sample[]} samples @param {string} verb @returns {Load} */
function load(samples, verb) {
  const ours = samples.filter(({ labels }) => labels.verb === verb);
  const counts = ours.filter(({ name }) => name === "pathmnist_request_seconds_count");
  const buckets = new Map();
  for (const { name, labels, value } of ours) {
    if (name !== "pathmnist_request_seconds_bucket" || Number(labels.status) >= 400) continue;
    const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
    buckets.set(bound, (buckets.get(bound) ?? 0) + value);
  }
  return {
    requests: counts.reduce((total, { value }) => total + value, 0),
    errors: counts.filter(({ labels }) => Number(labels.status) >= 400).reduce((total, { value }) => total + value, 0),
    p50: quantile(buckets, 0.5),
    p95: quantile(buckets, 0.95),
  };
}

/**
 * A quantile of a cumulative histogram, linear within a bucket, as Prometheus computes it.
 * @param {Map<number, number>} buckets counts up to each bound
 * @param {number} share
 */
export function quantile(buckets, share) {
  const bounds = [...buckets.keys()].sort((a, b) => a - b);
  const wanted = share * (buckets.get(Infinity) ?? 0);
  if (!wanted) return null;
  let [low, below] = [0, 0];
  for (const bound of bounds) {
    const count = buckets.get(bound) ?? 0;
    if (count >= wanted) return bound === Infinity ? low : low + ((bound - low) * (wanted - below)) / (count - below);
    [low, below] = [bound, count];
  }
  return low;
}

/** @param {Sample[]} samples @param {string} wanted @param {Record<string, string>} labels */
function sum(samples, wanted, labels) {
  const fits = (/** @type {Sample} */ sample) =>
    sample.name === wanted && Object.entries(labels).every(([name, value]) => sample.labels[name] === value);
  return samples.filter(fits).reduce((total, { value }) => total + value, 0);
}
