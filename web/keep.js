/** Exports: a report as one HTML file, and the request as a curl command. */

import { MODEL, predictionOptions } from "/api.js";
import { announce, h } from "/dom.js";
import { percent } from "/format.js";
import { showMessage } from "/messages.js";
import { methodOf } from "/methods.js";
import { base64Of, blobOf } from "/pictures.js";
import { session } from "/session.js";
import { nameOf } from "/tissues.js";
import { explanation, headline, tumourStatement } from "/verdict.js";
import { flatten } from "/viewer.js";

/** @typedef {import("/types.js").Answer} Answer */
/** @typedef {import("/types.js").Question} Question */

const DISCLAIMER = "Research software, not for clinical use: a tile’s class is not a diagnosis.";
/** A placeholder for an image's source, so that this page does not load the report's images. */
const SOURCE = "data-src";
const STYLE =
  "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#16202a}" +
  "figure{display:inline-block;margin:0 1rem 1rem 0}img{width:18rem;image-rendering:auto}img.model{image-rendering:pixelated}" +
  "table{border-collapse:collapse}td,th{padding:.2rem 1rem .2rem 0;text-align:left;border-bottom:1px solid #ccc}";

/** Save the shown tile, its maps and its verdict. @param {Question} question of the map on the screen */
export async function downloadReport(question) {
  const { answer, tile } = session;
  if (!answer || !tile) return;
  const title = h("title", {}, `${tile.name}: ${headline(answer)}`);
  const body = h("body", {}, ...(await content(answer, tile.name, question)));
  // This page's content security policy forbids inline styles, so the report's styles are text.
  const head = `<head><meta charset="utf-8">${title.outerHTML}<style>${STYLE}</style></head>`;
  const text = `<!doctype html>\n<html lang="en">${head}${body.outerHTML}</html>\n`.replaceAll(` ${SOURCE}="`, ' src="');
  save(new Blob([text], { type: "text/html" }), `${tile.name.replace(/\.\w+$/, "")}-report.html`);
}

/**
 * @param {Answer} answer
 * @param {string} name
 * @param {Question} question
 * @returns {Promise<Node[]>}
 */
async function content(answer, name, question) {
  const picture = await session.picture;
  const first = { method: "gradcam", target: answer.prediction.code, contrast: "" };
  const asked = [first, ...(JSON.stringify(first) === JSON.stringify(question) ? [] : [question])];
  const maps = picture ? await Promise.all(asked.map((item) => session.map(item))) : [];
  const figures = picture ? [await figure(await flatten(picture, { ...maps[0] }, 0), "The tile")] : [];
  figures.push(await figure(blobOf(answer.canonical.image, "image/png"), `The model’s view, ${answer.canonical.size} pixels`, "model"));
  for (const map of maps) {
    const { method, target, contrast } = map.question;
    const text = `${methodOf(method).title}: evidence for ${nameOf(target)}${contrast ? `, compared with ${nameOf(contrast)} (blue)` : ""}`;
    if (picture) figures.push(await figure(await flatten(picture, map, 0.8), text));
  }
  const rows = Object.entries(answer.probabilities).sort(([, a], [, b]) => b - a);
  const { model } = answer;
  return [
    h("p", {}, h("strong", {}, DISCLAIMER)),
    h("h1", {}, headline(answer)),
    h("p", {}, explanation(answer)),
    h("p", {}, h("strong", {}, tumourStatement(answer) ?? "")),
    ...figures,
    h(
      "table",
      {},
      h("tr", {}, h("th", {}, "Class"), h("th", {}, "Probability")),
      ...rows.map(([code, share]) => h("tr", {}, h("td", {}, `${nameOf(code)} (${code})`), h("td", {}, percent(share)))),
    ),
    h("p", {}, `File: ${name}. Date: ${new Date().toISOString()}.`),
    h("p", {}, `Model: ${model.name} ${model.version}, SHA-256 of the weights ${model.digest}, trained on ${model.training_data}.`),
  ];
}

/** @param {Blob} picture @param {string} caption @param {string} [kind] */
async function figure(picture, caption, kind = "") {
  const data = `data:${picture.type};base64,${await base64Of(picture)}`;
  return h("figure", {}, h("img", { [SOURCE]: data, alt: caption, class: kind }), h("figcaption", {}, caption));
}

/** @param {Blob} blob @param {string} name */
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Copy the curl command for the same request. */
export async function copyCurl() {
  const options = new URLSearchParams(predictionOptions());
  const token = sessionStorage.getItem("token") ? ' -H "Authorization: Bearer $PATHMNIST_TOKEN"' : "";
  const name = (session.tile?.name ?? "tile.png").replaceAll("'", "'\\''");
  const command = `curl -T '${name}'${token} '${location.origin}/predictions/${MODEL}?${options}'`;
  try {
    await navigator.clipboard.writeText(command);
    announce("The command is in the clipboard");
    showMessage("The command is in the clipboard.");
  } catch {
    showMessage(command);
  }
}
