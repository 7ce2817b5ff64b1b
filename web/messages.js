/** The one place for messages: what happened, what is allowed, and what helps. */

import { byId, h } from "./dom.js";

/**
 * @typedef {object} Action
 * @property {string} label
 * @property {() => void} run
 */

/**
 * Show a message until the next one, or until `hideMessage`.
 * @param {string} text
 * @param {Action[]} [actions]
 */
export function showMessage(text, actions = []) {
  const buttons = actions.map(({ label, run }) => {
    return h("button", { type: "button", click: () => (hideMessage(), run()) }, label);
  });
  const close = h("button", { type: "button", class: "icon", "aria-label": "Close the message", click: hideMessage }, "×");
  const box = byId("message");
  box.replaceChildren(h("p", {}, text), h("p", { class: "actions" }, ...buttons), close);
  box.hidden = false;
  if (box.getBoundingClientRect().top < 0) box.scrollIntoView({ block: "center" });
}

export function hideMessage() {
  byId("message").hidden = true;
}
