/** The server's token, if it requires one. The page asks once and stores it for this tab. */

import { h } from "/dom.js";

const KEY = "token";
/** @type {Promise<void> | null} */
let asking = null;

export function storedToken() {
  return sessionStorage.getItem(KEY);
}

export function forgetToken() {
  sessionStorage.removeItem(KEY);
}

/** Ask the visitor for the token. Concurrent callers share one dialogue. */
export function askToken() {
  asking ??= show().finally(() => (asking = null));
  return asking;
}

/** @returns {Promise<void>} */
function show() {
  return new Promise((resolve) => {
    const field = h("input", { type: "password", id: "token", autocomplete: "off", required: true });
    const submit = (/** @type {Event} */ event) => {
      event.preventDefault();
      sessionStorage.setItem(KEY, field.value.trim());
      dialog.close();
    };
    const dialog = h(
      "dialog",
      { "aria-labelledby": "token-title", cancel: (/** @type {Event} */ event) => event.preventDefault() },
      h(
        "form",
        { submit },
        h("h2", { id: "token-title" }, "This server requires a token"),
        h("p", {}, "The server’s operator can give it to you. It is stored in this tab until you close it."),
        h("label", { for: "token" }, "Token"),
        field,
        h("p", { class: "actions" }, h("button", { class: "primary" }, "Continue")),
      ),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
