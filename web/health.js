/** Polls the server's readiness while the page is visible. */

import { isReady } from "/api.js";
import { byId } from "/dom.js";

const SECONDS_UP = 10;
const SECONDS_DOWN = 3;

/** Dispatches `change`. */
class Health extends EventTarget {
  /** @type {boolean | null} null before the first check */
  isUp = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  start() {
    document.addEventListener("visibilitychange", () => this.look());
    this.look();
  }

  /** Check now, and schedule the next check. */
  async look() {
    clearTimeout(this.#timer);
    if (document.hidden) return;
    const isUp = await isReady();
    const changed = isUp !== this.isUp;
    this.isUp = isUp;
    const element = byId("health");
    element.dataset.state = isUp ? "up" : "down";
    element.textContent = isUp ? "Ready" : "Not reachable";
    if (changed) this.dispatchEvent(new Event("change"));
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.look(), 1000 * (isUp ? SECONDS_UP : SECONDS_DOWN));
  }
}

export const health = new Health();
