// The service worker: keeps the page's own files, so that it opens (and says that the server is away) without a connection.
// Never touches /api: chats live on the server alone.
const NAME = 'hadal-@build@';
const CORE = ['/', '/manifest.webmanifest', '/icon.svg', ...'@core@'.split(' ')];

self.addEventListener('install', (e) => e.waitUntil(caches.open(NAME).then((c) => c.addAll(CORE)).then(() => self.skipWaiting())));
self.addEventListener('activate', (e) => e.waitUntil(caches.keys()
  .then((all) => Promise.all(all.filter((n) => n.startsWith('hadal-') && n !== NAME).map((n) => caches.delete(n))))
  .then(() => self.clients.claim())));

async function fromCache(request) {
  const cache = await caches.open(NAME), have = await cache.match(request);
  if (have) return have;
  const r = await fetch(request);
  if (r.ok) await cache.put(request, r.clone());
  return r;
}
async function fromServer(request) {
  try {
    return await fetch(request);
  } catch (e) {
    const have = await (await caches.open(NAME)).match('/');
    if (have) return have;
    throw e;
  }
}
self.addEventListener('fetch', (e) => {
  const url = new URL(e.request.url);
  if (e.request.method !== 'GET' || url.origin !== location.origin) return;
  if (url.pathname.startsWith('/a/')) e.respondWith(fromCache(e.request));
  else if (url.pathname === '/') e.respondWith(fromServer(e.request));
});
