/**
 * A model's outputs to an answer, by the rules of model.json. The same as the server's `handler/model/prediction.py` and
 * `handler/api/verdict.py`.
 */

/** @typedef {import("./types.js").Classification} Classification */
/** @typedef {import("./types.js").Verdict} Verdict */
/** @typedef {import("./types.js").TestTiles} TestTiles */
/** @typedef {import("./model.js").Outputs} Outputs */

/**
 * @typedef {object} Rules the calibration
 * @property {number} temperature
 * @property {Record<string, number>} thresholds
 * @property {number} ood_threshold
 * @property {number | null} tumour_threshold
 * @property {TestTiles[]} reliability
 *
 * @typedef {object} ModelData the content of model.json
 * @property {Classification["model"]} model
 * @property {string[]} codes in the order of the logits
 * @property {number} canonical_size
 * @property {number} input_size
 * @property {Rules | null} rules
 * @property {number} confident_from
 * @property {string[]} tumour_related
 * @property {string} disclaimer
 */

/**
 * @param {Outputs} outputs
 * @param {ModelData} data
 * @returns {Omit<Classification, "seconds">}
 */
export function answerOf({ logits, oodScore }, data) {
  const { model, codes, rules } = data;
  const shares = softmax([...logits].map((logit) => logit / (rules?.temperature ?? 1)));
  const order = [...codes.keys()].sort((a, b) => shares[b] - shares[a]);
  const coverage = rules && Object.keys(rules.thresholds).sort((a, b) => Number(b) - Number(a))[0];
  const set = rules && coverage ? predictionSet(order, shares, rules.thresholds[coverage]) : null;
  const isLike = rules && oodScore !== null ? oodScore <= rules.ood_threshold : null;
  const isFew = set === null || set.length === 1;
  const possible = isFew ? order.slice(0, shares[order[0]] < data.confident_from ? 2 : 1) : set;
  const verdict = verdictOf(possible.map((index) => codes[index]), shares, isLike, data);
  return {
    model,
    prediction: { code: codes[order[0]], probability: shares[order[0]], calibrated: rules !== null },
    probabilities: Object.fromEntries(codes.map((code, index) => [code, shares[index]])),
    prediction_set: set && isLike !== false ? { coverage: Number(coverage), codes: set.map((index) => codes[index]) } : null,
    ood_score: rules ? oodScore : null,
    in_distribution: isLike,
    verdict,
    risk: riskOf(verdict, data.disclaimer),
  };
}

/**
 * @param {string[]} possible the codes of the classes that the tile may have, most probable first
 * @param {number[]} shares
 * @param {boolean | null} isLike whether the tile is like the training tiles
 * @param {ModelData} data
 * @returns {Verdict}
 */
function verdictOf(possible, shares, isLike, { codes, rules, tumour_related }) {
  const isUnreliable = isLike === false;
  const isSure = rules !== null && possible.length === 1;
  const tumourShare = Math.min(1, tumour_related.reduce((sum, code) => sum + shares[codes.indexOf(code)], 0));
  const threshold = rules?.tumour_threshold ?? null;
  const isRelated = threshold === null ? null : tumourShare >= threshold;
  const bin = rules && reliabilityAt(rules.reliability, Math.max(...shares));
  return {
    state: isUnreliable ? "unreliable" : isSure ? "confident" : "uncertain",
    classes: isUnreliable ? [] : possible,
    tumour_share: tumourShare,
    tumour_related: isUnreliable ? isRelated || null : isRelated,
    tumour_threshold: threshold,
    test_tiles: bin,
    share_right: bin && bin.right / bin.tiles,
  };
}

/** A tile without tumour says nothing about its slide, so the level is never low. @param {Verdict} verdict @param {string} disclaimer */
function riskOf({ state, tumour_related: isRelated }, disclaimer) {
  if (state === "unreliable" || isRelated === null) return null;
  return { level: isRelated ? "high" : "unknown", disclaimer };
}

/** @param {number[]} logits */
function softmax(logits) {
  const most = Math.max(...logits);
  const shares = logits.map((logit) => Math.exp(logit - most));
  const sum = shares.reduce((total, share) => total + share, 0);
  return shares.map((share) => share / sum);
}

/** The most probable class, and every other one from the threshold on. @param {number[]} order @param {number[]} shares @param {number} threshold */
function predictionSet([first, ...others], shares, threshold) {
  return [first, ...others.filter((index) => shares[index] >= threshold)];
}

/** The test tiles with a confidence like this one. @param {TestTiles[]} bins @param {number} share */
function reliabilityAt(bins, share) {
  return bins.find((bin) => bin.tiles > 0 && bin.low <= share && (share < bin.high || bin.high === 1)) ?? null;
}
