/**
 * Keeps the page's files for use without a network, and gives each the headers that a plain file server lacks: those
 * under which WebAssembly may use threads, and the content security policy, which a worker does not take from its page.
 */

// Generated: the version, the page's files, which of them to store at once, and the policy of index.html.
importScripts("files.js");

const { version, files, small, policy } = self.FILES;
const PREFIX = `pathmnist ${self.registration.scope} `;
const CACHE = PREFIX + version;
const HEADERS = {
  "Content-Security-Policy": policy,
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};

self.addEventListener("install", (event) => event.waitUntil(storeSmallFiles()));
self.addEventListener("activate", (event) => event.waitUntil(takeOver()));
self.addEventListener("fetch", (event) => {
  const name = nameOf(event.request.url);
  if (name !== null) event.respondWith(answer(name));
});

async function storeSmallFiles() {
  await Promise.all(small.map(answer));
  await self.skipWaiting();
}

/** Drop the files of earlier versions. */
async function takeOver() {
  for (const name of await caches.keys()) {
    if (name.startsWith(PREFIX) && name !== CACHE) await caches.delete(name);
  }
  await self.clients.claim();
}

/** The page's file that an address means; null for any other address. */
function nameOf(address) {
  const url = new URL(address);
  const place = url.origin + url.pathname;
  if (!place.startsWith(self.registration.scope)) return null;
  const name = place.slice(self.registration.scope.length) || "index.html";
  return files.includes(name) ? name : null;
}

async function answer(name) {
  const cache = await caches.open(CACHE);
  const address = new URL(name, self.registration.scope).href;
  const stored = await cache.match(address);
  if (stored) return withHeaders(stored);
  const response = await fetch(address, { cache: "no-cache" });
  if (response.ok) await cache.put(address, response.clone());
  return withHeaders(response);
}

function withHeaders(response) {
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
