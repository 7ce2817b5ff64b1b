/** Installs the service worker, with which the page works without a network and WebAssembly uses threads. */

const KEY = "wasReloaded";
/** Milliseconds after which the page starts without the service worker, for example if a file could not be stored. */
const PATIENCE = 15_000;

/**
 * Resolves once the service worker answers this page's requests: true, or false where the browser has none (without
 * HTTPS, or in some private windows). The first visit reloads the page once, to get the worker's headers.
 */
export async function workOffline() {
  if (!("serviceWorker" in navigator)) return false;
  try {
    await navigator.serviceWorker.register("service-worker.js");
  } catch {
    return false;
  }
  const patience = new Promise((resolve) => setTimeout(() => resolve(null), PATIENCE));
  if (!(await Promise.race([navigator.serviceWorker.ready, patience]))) return false;
  if (!crossOriginIsolated && !sessionStorage.getItem(KEY)) {
    sessionStorage.setItem(KEY, "yes");
    location.reload();
    await new Promise(() => {});
  }
  return navigator.serviceWorker.controller !== null;
}
