/** Tissues: appearance and meaning of the nine classes, the model's recall, and sources. */

import { h } from "/dom.js";
import { exactPercent } from "/format.js";
import { evaluation, examples, mistakes } from "/reports.js";
import { openExample } from "/screens/analyse.js";
import { GROUPS, nameOf, SOURCES, TISSUES } from "/tissues.js";

/** @typedef {import("/tissues.js").Tissue} Tissue */

const ORDER = Object.keys(SOURCES);

/** @param {HTMLElement} main @returns {() => void} */
export function tissues(main) {
  const groups = Object.entries(GROUPS).map(([name, { title, text }]) =>
    h(
      "section",
      { class: "group" },
      h("h2", {}, title),
      h("p", { class: "hint" }, text),
      h("div", { class: "cards" }, ...TISSUES.filter(({ group }) => group === name).map(tissueCard)),
    ),
  );
  const sources = Object.values(SOURCES).map(({ cited, title, doi }) =>
    h("li", {}, `${cited}. ${title}. `, h("a", { href: `https://doi.org/${doi}`, rel: "noreferrer" }, `doi ${doi}`)),
  );
  const origin = h("p", { class: "hint" }, "A network generated the pictures. They show typical colours and structure, not real tissue.");
  main.replaceChildren(h("h1", {}, "The nine tissues"), origin, ...groups, h("h2", { id: "sources" }, "Sources"), h("ol", { class: "sources" }, ...sources));
  addFigures(main);
  addPictures(main);
  if (location.hash) document.querySelector(location.hash.toLowerCase())?.scrollIntoView();
  return () => {};
}

/** @param {Tissue} tissue */
function tissueCard({ code, name, fullName, looks, means, sources }) {
  const cited = sources.map((source) => ORDER.indexOf(source) + 1).join(", ");
  return h(
    "article",
    { class: "card tissue", id: code.toLowerCase() },
    h("h3", {}, `${name} `, h("abbr", { title: fullName }, code)),
    h("p", {}, h("strong", {}, "Looks like: "), looks),
    h("p", {}, h("strong", {}, "Means: "), means, " ", h("a", { href: "#sources", "aria-label": `Sources ${cited}` }, `[${cited}]`)),
    h("p", { class: "figures-of" }),
  );
}

/** The recall of each tissue, and its most frequent confusion. @param {HTMLElement} main */
async function addFigures(main) {
  const report = await evaluation();
  for (const { code, images, recall } of report?.classes ?? []) {
    const place = main.querySelector(`#${code.toLowerCase()} .figures-of`);
    const worst = report && mistakes(report).find(({ truth }) => truth === code);
    const [low, high] = recall.interval.map((share) => (100 * share).toFixed(0));
    place?.replaceChildren(
      `The model finds ${exactPercent(recall.value)} of ${images} test tiles (95 % interval ${low} to ${high}).`,
      worst ? ` It is most often mistaken for ${nameOf(worst.predicted).toLowerCase()} (${worst.count} of ${worst.of}).` : "",
    );
  }
}

/** The examples that the model answers right; the others could mislead. @param {HTMLElement} main */
async function addPictures(main) {
  for (const { file, tissue, answer } of await examples()) {
    if (answer !== "right" || file !== `${tissue}.png`) continue;
    const card = main.querySelector(`#${tissue.toLowerCase()}`);
    card?.prepend(h("img", { src: `/examples/${file}`, alt: `${nameOf(tissue)}, generated`, width: 160, height: 160 }));
    card?.append(h("button", { type: "button", click: () => openExample(file) }, "See it on this example"));
  }
}
