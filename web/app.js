/** The page's frame: routing, shortcuts, light and dark theme, and the connection to the model. */

import { byId, h } from "/dom.js";
import { health } from "/health.js";
import { chooseFile, listen } from "/intake.js";
import { hideMessage } from "/messages.js";
import { analyse } from "/screens/analyse.js";
import { regions } from "/regions.js";
import { session } from "/session.js";

const THEMES = ["light", "dark"];
const SHORTCUTS = [
  ["N", "choose a new tile"],
  ["1 to 9", "show the map of a method"],
  ["C", "compare methods"],
  ["Space", "hold: hide the map"],
  ["+ and −", "opacity of the map"],
  ["M", "the tile as the model sees it"],
  ["Ctrl+V", "paste a tile"],
  ["?", "this list"],
];

/** @type {Record<string, () => Promise<(main: HTMLElement) => () => void>>} */
const SCREENS = {
  "/": async () => analyse,
  "/compare": async () => (await import("/screens/compare.js")).compare,
  "/region": async () => (await import("/screens/region.js")).region,
  "/model": async () => (await import("/screens/model.js")).model,
  "/tissues": async () => (await import("/screens/tissues.js")).tissues,
  "/server": async () => (await import("/screens/server.js")).server,
};

let leave = () => {};

/** Show the screen of the current URL. */
async function show() {
  const open = await (SCREENS[location.pathname] ?? SCREENS["/"])();
  const main = byId("main");
  leave();
  hideMessage();
  main.replaceChildren();
  leave = open(main);
  main.dataset.screen = location.pathname;
  for (const link of document.querySelectorAll("nav.screens a")) {
    const isHere = link.getAttribute("href") === (location.pathname === "/compare" ? "/" : location.pathname);
    link.toggleAttribute("aria-current", isHere);
    if (isHere) link.setAttribute("aria-current", "page");
  }
}

/** Go to another screen. @param {string} address */
export function go(address) {
  history.pushState(null, "", address);
  window.scrollTo(0, 0);
  byId("main").focus({ preventScroll: true });
  return show();
}

/** Follow links within the page without a page load. @param {MouseEvent} event */
function follow(event) {
  const link = /** @type {HTMLElement} */ (event.target).closest("a");
  const isPlain = !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) && event.button === 0;
  if (!link || !isPlain || link.origin !== location.origin || link.download || !(link.pathname in SCREENS)) return;
  if (link.hash && link.pathname === location.pathname) return;
  event.preventDefault();
  if (link.getAttribute("href") === "/" && location.pathname === "/" && session.tile) session.close();
  go(link.pathname + link.search + link.hash);
}

/** @param {KeyboardEvent} event */
function shortcut(event) {
  const isTyping = /** @type {HTMLElement} */ (event.target).closest("select, input:not([type=range]), dialog");
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping) return;
  if (event.key === "?") showShortcuts();
  if (event.key === "n") chooseFile();
  if (event.key === "c" && session.tile) go("/compare");
}

function showShortcuts() {
  const rows = SHORTCUTS.map(([keys, text]) => h("div", {}, h("dt", {}, h("kbd", {}, keys)), h("dd", {}, text)));
  const close = h("button", { type: "button", class: "primary", click: () => dialog.close() }, "Close");
  const dialog = h(
    "dialog",
    { "aria-labelledby": "shortcuts" },
    h("h2", { id: "shortcuts" }, "Keyboard"),
    h("dl", { class: "keys" }, ...rows),
    h("p", { class: "actions" }, close),
  );
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

/** @param {string | null} theme null for the system's */
function setTheme(theme) {
  if (theme && THEMES.includes(theme)) document.documentElement.dataset.theme = theme;
}

function changeTheme() {
  const isDark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  const theme = isDark ? "light" : "dark";
  localStorage.setItem("theme", theme);
  setTheme(theme);
}

setTheme(localStorage.getItem("theme"));
document.addEventListener("click", follow);
document.addEventListener("keydown", shortcut);
window.addEventListener("popstate", show);
byId("theme").addEventListener("click", changeTheme);
byId("help").addEventListener("click", showShortcuts);
health.addEventListener("change", () => {
  if (health.isUp && session.failure?.isDown) session.ask();
});
session.addEventListener("failure", () => {
  if (session.failure?.isDown) health.look();
});
session.restore();
// A tile chosen on another screen is shown on the first.
session.addEventListener("tile", () => {
  if (session.tile && location.pathname !== "/" && location.pathname !== "/compare") go("/");
});
regions.addEventListener("chosen", () => {
  if (location.pathname !== "/region") go("/region");
});
listen();
health.start();
await show();
