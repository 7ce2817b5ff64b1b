/** Server: metrics of the running server, for its operator. */

import { ApiError, metrics } from "/api.js";
import { pairedBars, table } from "/charts.js";
import { h, skeleton } from "/dom.js";
import { exactPercent } from "/format.js";
import { showMessage } from "/messages.js";
import { parse, snapshot } from "/metrics.js";
import { evaluation } from "/reports.js";
import { nameOf, TISSUES } from "/tissues.js";

/** @typedef {import("/metrics.js").Snapshot} Snapshot */

const SECONDS = 3;

/** @param {HTMLElement} main @returns {() => void} */
export function server(main) {
  const body = h("div", {}, skeleton(8));
  const api = h("p", { class: "hint" }, h("a", { href: "/docs" }, "The API"), " and a form for each of its requests.");
  main.replaceChildren(h("h1", {}, "Server"), api, body);
  /** @type {Snapshot | null} */
  let before = null;
  let isHere = true;
  const look = async () => {
    if (!document.hidden) {
      try {
        const now = snapshot(parse(await metrics()), performance.now() / 1000);
        if (isHere) body.replaceChildren(...(await figures(now, before)));
        before = now;
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        if (isHere) showMessage("Server metrics are not available. The page retries automatically.");
      }
    }
    if (isHere) setTimeout(look, 1000 * SECONDS);
  };
  look();
  return () => {
    isHere = false;
  };
}

/** @param {Snapshot} now @param {Snapshot | null} before @returns {Promise<Node[]>} */
async function figures(now, before) {
  const total = now.verbs.predictions.requests + now.verbs.explanations.requests;
  if (!total) return [h("p", { class: "lead" }, "No requests since the server started.")];
  const rows = Object.entries(now.verbs).map(([verb, load]) => {
    const earlier = before?.verbs[/** @type {"predictions"} */ (verb)].requests ?? load.requests;
    const rate = before ? Math.max(0, load.requests - earlier) / (now.time - before.time) : 0;
    return [verb === "predictions" ? "Predictions" : "Explanations", String(load.requests), rate.toFixed(1), time(load.p50), time(load.p95), String(load.errors)];
  });
  const maps = now.hits + now.misses;
  return [
    h(
      "section",
      { class: "card" },
      table("Since the server started", ["Requests", "Answered", "Per second", "Half within", "95 % within", "Errors"], rows),
      h("p", { class: "hint" }, maps ? `Cache hits: ${now.hits} of ${maps} maps that are slower than a prediction.` : "No requests for maps that are slower than a prediction."),
    ),
    await mix(now),
  ];
}

/** @param {number | null} seconds */
function time(seconds) {
  if (seconds === null) return "–";
  return seconds < 1 ? `${Math.round(1000 * seconds)} ms` : `${seconds.toFixed(1)} s`;
}

/** The class mix of the responses beside that of the training tiles. @param {Snapshot} now */
async function mix(now) {
  const training = (await evaluation())?.trainingMix ?? {};
  const total = Object.values(now.classes).reduce((sum, count) => sum + count, 0) || 1;
  const rows = TISSUES.map(({ code }) => ({ label: nameOf(code), one: (now.classes[code] ?? 0) / total, other: training[code] ?? 0 }))
    .map((row) => ({ ...row, note: `${exactPercent(row.one)} / ${exactPercent(row.other)}` }));
  return h(
    "section",
    { class: "card" },
    h("h2", {}, "Classes of the answers"),
    h("p", { class: "hint" }, h("span", { class: "key one" }), "answers / ", h("span", { class: "key other" }), "training tiles. A mix that drifts away from the training tiles may mean other tissue, stain or scanner."),
    pairedBars("Classes of the responses and of the training tiles", rows),
  );
}
