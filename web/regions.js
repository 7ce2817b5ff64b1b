/** The region of this tab: a file that was chosen, its job on the server, and the map. */

import { ApiError, deleteJob, fetchBlob, fetchJson, readJob, startRegion } from "/api.js";

/** @typedef {import("/types.js").Job} Job */
/** @typedef {import("/types.js").Shape} Shape */

/** Seconds between two looks at the progress. */
const PATIENCE = 0.7;

/** Dispatches `chosen` (a file without a job), `job` (another job, or none) and `progress`. */
class Regions extends EventTarget {
  /** The file of the job, or one that has no job yet. @type {File | null} */
  file = null;
  /** @type {Job | null} */
  job = null;
  #requests = new AbortController();

  /** @param {File} file */
  choose(file) {
    this.file = file;
    this.dispatchEvent(new Event("chosen"));
  }

  /** Start a job. Raises `ApiError`. @param {Blob | null} image @param {Record<string, string>} options */
  async start(image, options) {
    this.#follow(await startRegion(image, options));
  }

  /** Continue with a job of the server. Raises `ApiError`. @param {string} id */
  async resume(id) {
    if (this.job?.id !== id) this.#follow(await readJob(id));
  }

  /** Leave the job, and delete it from the server. */
  async close() {
    const { job } = this;
    this.#requests.abort();
    this.job = null;
    this.file = null;
    this.dispatchEvent(new Event("job"));
    if (job) await deleteJob(job.id).catch(() => {});
  }

  /** The address of the region's picture. */
  get picture() {
    return this.job ? `/jobs/${this.job.id}/image` : "";
  }

  /** @returns {Promise<Shape>} */
  shape() {
    return fetchJson(this.picture, this.#requests.signal);
  }

  /** @returns {Promise<import("/tissue_map.js").MapJson>} */
  map() {
    return fetchJson(this.job?.links["map.json"] ?? "", this.#requests.signal);
  }

  /** One pixel for each cell. */
  async cells() {
    return createImageBitmap(await fetchBlob(this.job?.links["cells.png"] ?? "", this.#requests.signal));
  }

  /** @param {Job} job */
  async #follow(job) {
    this.#requests.abort();
    this.#requests = new AbortController();
    const { signal } = this.#requests;
    this.job = job;
    this.dispatchEvent(new Event("job"));
    while (this.job && (this.job.state === "queued" || this.job.state === "running")) {
      await new Promise((resolve) => setTimeout(resolve, 1000 * PATIENCE));
      if (signal.aborted) return;
      const latest = await readJob(job.id).catch((error) => {
        if (error instanceof ApiError && error.code === "not_found") return null;
        return this.job;
      });
      if (signal.aborted) return;
      this.job = latest;
      this.dispatchEvent(new Event(latest ? "progress" : "job"));
    }
  }
}

export const regions = new Regions();
