/** The history: all tiles of this tab. */

import { h } from "/dom.js";
import { session } from "/session.js";

/** The list of the tab's tiles, which reopens them; null if it is empty. */
export function historyStrip() {
  if (!session.history.length) return null;
  const strip = h("ul", { class: "history", "aria-label": "Tiles of this tab" });
  for (const tile of session.history) {
    const thumbnail = h("canvas", { width: 56, height: 56, "aria-hidden": "true" });
    createImageBitmap(tile.blob, { resizeWidth: 56, resizeHeight: 56 }).then(
      (picture) => thumbnail.getContext("2d")?.drawImage(picture, 0, 0),
      () => {},
    );
    const label = `${tile.name}${tile.headline ? `: ${tile.headline}` : ""}`;
    strip.append(
      h(
        "li",
        {},
        h(
          "button",
          { type: "button", "aria-label": label, title: label, "aria-pressed": String(tile === session.tile), click: () => session.open(tile) },
          thumbnail,
          h("span", {}, tile.headline || "…"),
        ),
      ),
    );
  }
  return h("section", {}, h("h2", {}, "Tiles of this tab"), strip);
}
