// Talking with the server: JSON calls, and the stream of an answer.

export class ApiError extends Error {
  constructor(status, message, code, retryAfter) {
    super(message);
    this.status = status; // 0: the server did not answer
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

async function failure(r) {
  const body = await r.json().catch(() => null);
  const e = body?.error || {};
  return new ApiError(r.status, e.message || r.statusText || String(r.status), e.code, Number(r.headers.get('retry-after')) || 0);
}

// A server with API keys wants one from the page as well: it is asked for once, and exchanged for a cookie.  Where a one-time link lets people
// in (hadal serve --lan) there is nothing to type, and the server's own words say so.
export const hooks = { askKey: async () => null };

async function logIn() {
  const key = await hooks.askKey();
  if (!key) return false;
  const r = await fetch('/login', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ key }) });
  return r.ok || logIn();
}

async function send(path, options) {
  const r = await fetch(path, options);
  if (r.status !== 401) return r;
  const body = await r.clone().json().catch(() => null);
  if (!/API key/.test(body?.error?.message || '') || !(await logIn())) return r;
  return fetch(path, options);
}

async function call(method, path, body) {
  let r;
  try {
    r = await send(path, {
      method,
      headers: body === undefined ? {} : { 'content-type': 'application/json' },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new ApiError(0, 'no answer');
  }
  if (!r.ok) throw await failure(r);
  return r;
}
const json = async (...a) => (await call(...a)).json();

export const api = {
  state: () => json('GET', '/api/ui/state'),
  chats: (offset) => json('GET', `/api/ui/chats?offset=${offset}`),
  search: (q) => json('GET', `/api/ui/search?q=${encodeURIComponent(q)}`),
  chat: (id) => json('GET', `/api/ui/chats/${id}`),
  change: (id, set) => json('POST', `/api/ui/chats/${id}`, set),
  remove: (id) => json('DELETE', `/api/ui/chats/${id}`),
  removeAll: () => json('DELETE', '/api/ui/chats'),
  removeMessage: (id) => json('DELETE', `/api/ui/messages/${id}`),
  ask: (what) => json('POST', '/api/ui/ask', what),
  answer: (what) => json('POST', '/api/ui/answer', what),
  stop: (id) => json('POST', `/api/ui/stop/${id}`, {}),
  importChats: (text) => json('POST', '/api/ui/import', text),
  exportChats: async (format, chat) => (await call('GET', `/api/ui/export?format=${format}${chat ? `&chat=${chat}` : ''}`)).text(),
};

// The events of the answer m, which is told to the server as far as it is here: the first ('start') says what of that counts, and what is
// missing follows.  Comes back after a lost connection by itself and says so ({ t: 'lost' }); ends after 'done', or when `signal` is aborted.
const bytes = (s) => new TextEncoder().encode(s).length;
export async function* follow(m, signal) {
  for (let wait = 300; ; wait = Math.min(wait * 2, 5000)) {
    try {
      const r = await send(`/api/ui/answers/${m.id}?text=${bytes(m.text)}&thinking=${bytes(m.thinking)}`, { signal });
      if (r.status === 404) return; // finished or deleted meanwhile: the chat itself tells
      if (!r.ok) throw await failure(r);
      let done = false;
      for await (const event of events(r.body)) {
        wait = 300;
        yield event;
        done ||= event.t === 'done';
      }
      if (done) return;
    } catch (e) {
      if (signal.aborted) return;
    }
    if (signal.aborted) return;
    yield { t: 'lost' };
    await new Promise((done) => setTimeout(done, wait));
  }
}

// Server-sent events with one JSON object each; comments keep the line warm.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = '';
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      buffer += value;
      const lines = buffer.split('\n');
      buffer = lines.pop();
      for (const line of lines) if (line.startsWith('data: ')) yield JSON.parse(line.slice(6));
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
