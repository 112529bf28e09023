// The page: puts the list, the conversation and the message field together, and owns keys, address and connection.
import { h, icon, iconButton, scriptURL } from './dom.js';
import { t, num } from './i18n.js';
import { api, ApiError, hooks } from './api.js';
import { Chat } from './chat.js';
import { Sidebar } from './sidebar.js';
import { Speaker } from './speak.js';
import { notice, promptBox } from './dialog.js';
import { openSettings } from './settings.js';

const $ = (id) => document.getElementById(id);
let server = {};

// ---- Words of the fixed parts ----

function label(id, text) {
  $(id).setAttribute('aria-label', text);
  $(id).title = text;
}
function words() {
  $('skip').textContent = t('skip');
  $('side').setAttribute('aria-label', t('chats'));
  $('new').replaceChildren(icon('plus'), t('newChat'));
  $('search').placeholder = t('search');
  $('search').setAttribute('aria-label', t('search'));
  $('settings').replaceChildren(icon('gear'), t('settings'));
  label('open-side', t('openList'));
  label('close-side', t('closeList'));
  $('log').setAttribute('aria-label', t('conversation'));
  $('ask').placeholder = t('askPlaceholder');
  $('ask').setAttribute('aria-label', t('ask'));
  $('think').replaceChildren(icon('bulb'), h('span', null, t('thinkSwitch')));
  $('hint').textContent = t('hintKeys');
  $('composer').setAttribute('aria-label', t('ask'));
  drawSend();
}

// ---- Errors, said in words ----

let retry;
function error(e) {
  if (!(e instanceof ApiError)) {
    notice(`${t('errorTitle')}: ${e.message}`);
    return;
  }
  if (e.status === 0) offline();
  else if (e.status === 503 && e.code === 'store') notice(t('storeFailed', { why: e.message }), true);
  else if (e.status === 503 || e.status === 429) notice(t('busy', { time: t('seconds', { n: e.retryAfter || 5 }) }));
  else if (e.status === 404) notice(t('notFound'));
  else if (e.status === 401) notice(e.message, true);
  else notice(`${t('errorTitle')}: ${e.message}`);
}
// The server is gone: say so, and look for it until it is back.
function offline() {
  notice(t('offline'), true);
  retry ??= setInterval(async () => {
    try {
      await loadState();
    } catch {
      return;
    }
    clearInterval(retry);
    retry = undefined;
    notice('');
    sidebar.load();
    chat.reload().catch(error);
  }, 2000);
}

// ---- Parts ----

const speaker = new Speaker($('live'));
const chat = new Chat($('log'), {
  speaker,
  error,
  changed: drawBar,
  started(id) {
    location.hash = String(id);
    sidebar.select(id);
    sidebar.load();
  },
  finished: () => sidebar.load(),
});
const sidebar = new Sidebar($('list'), $('search'), {
  error,
  open: (id) => {
    closeSide();
    open(id);
  },
  removed: (id) => {
    if (chat.id === id) fresh();
  },
  renamed: (id, title) => {
    if (chat.id !== id) return;
    chat.title = title;
    drawBar(chat);
  },
});

function drawBar(c) {
  $('title').textContent = c.title || t('untitled');
  document.title = c.title ? `${c.title} · hadal` : 'hadal';
  const last = c.path?.().filter((m) => m.info?.prompt_tok).pop(), all = server.ctx_tok;
  const used = last ? last.info.prompt_tok + (last.info.gen_tok || 0) : 0, gauge = $('gauge');
  gauge.hidden = !all || !used;
  if (!gauge.hidden) {
    const p = Math.min(100, Math.round((100 * used) / all)), text = t('context', { used, all });
    gauge.title = text;
    gauge.setAttribute('aria-label', text);
    gauge.setAttribute('aria-valuenow', p);
    gauge.setAttribute('aria-valuetext', text);
    gauge.firstElementChild.style.inlineSize = `${p}%`;
    $('gauge-text').textContent = t('contextShort', { p: num(p) });
  }
  $('gauge-text').hidden = gauge.hidden;
  drawThink();
  drawSend();
}

function drawSend() {
  const running = !!chat?.running, b = $('send');
  b.replaceChildren(icon(running ? 'stop' : 'send'));
  b.setAttribute('aria-label', running ? t('stop') : t('send'));
  b.title = running ? t('stop') : t('send');
  b.classList.toggle('stopping', running);
  b.disabled = !running && !$('ask').value.trim();
}

function thinkOn() { return chat.settings.thinking ?? server.thinking_default ?? true; }
function drawThink() {
  $('think').hidden = !server.thinking_switch;
  $('think').setAttribute('aria-pressed', String(thinkOn()));
}

// ---- Opening chats ----

function fresh() {
  chat.clear();
  chat.isNew = null;
  if (location.hash) history.pushState(null, '', location.pathname);
  sidebar.select(null);
  $('ask').value = draft(null);
  fit();
  drawSend();
  $('ask').focus();
}

async function open(id) {
  saveDraft();
  try {
    await chat.open(id);
  } catch (e) {
    error(e);
    if (e.status === 404) fresh();
    return;
  }
  if (location.hash !== `#${id}`) location.hash = String(id);
  sidebar.select(id);
  $('ask').value = draft(id);
  fit();
  drawSend();
  if (matchMedia('(hover: hover)').matches) $('ask').focus();
}

addEventListener('hashchange', () => {
  const id = Number(location.hash.slice(1));
  if (!id && chat.id) fresh();
  else if (id && id !== chat.id) open(id);
});

// ---- The message field ----

// What was typed and not sent survives a reload, per chat.
const draft = (id) => sessionStorage.getItem(`draft-${id || 0}`) || '';
function saveDraft() {
  const v = $('ask').value;
  if (v) sessionStorage.setItem(`draft-${chat.id || 0}`, v);
  else sessionStorage.removeItem(`draft-${chat.id || 0}`);
}
function fit() {
  const a = $('ask');
  a.style.height = 'auto';
  a.style.height = `${Math.min(a.scrollHeight, innerHeight * 0.4)}px`;
}

async function send() {
  const text = $('ask').value;
  if (!text.trim() || chat.running || $('send').dataset.busy) return;
  $('send').dataset.busy = '1';
  try {
    await chat.send(text);
    sessionStorage.removeItem('draft-0');
    $('ask').value = '';
    saveDraft();
    fit();
  } catch (e) {
    error(e); // what was typed stays in the field
  } finally {
    delete $('send').dataset.busy;
    drawSend();
  }
}

$('ask').addEventListener('input', () => {
  fit();
  drawSend();
  saveDraft();
});
$('ask').addEventListener('keydown', (e) => {
  if (e.isComposing || e.keyCode === 229) return; // an input method is choosing characters
  if (e.key === 'Enter' && !e.shiftKey) {
    e.preventDefault();
    send();
  } else if (e.key === 'ArrowUp' && !$('ask').value) {
    const mine = chat.path().filter((m) => m.role === 'user').pop();
    if (!mine || chat.running) return;
    e.preventDefault();
    chat.views.get(mine.id)?.edit();
  }
});
$('composer').addEventListener('submit', (e) => {
  e.preventDefault();
  if (chat.running) chat.stop();
  else send();
});
$('think').addEventListener('click', async () => {
  chat.settings.thinking = !thinkOn();
  drawThink();
  if (chat.id) await api.change(chat.id, { settings: chat.settings }).catch(error);
});

// ---- The list on a small screen ----

const narrow = matchMedia('(max-width: 800px)');
function setSide(open) {
  document.body.classList.toggle('side-open', open);
  $('open-side').setAttribute('aria-expanded', String(open));
  $('side').inert = !open;
  $('main').inert = open && narrow.matches;
  if (!narrow.matches) localStorage.setItem('side', open ? '1' : '0');
}
function closeSide() {
  if (narrow.matches) setSide(false);
}
$('open-side').append(icon('menu'));
$('close-side').append(icon('close'));
$('open-side').addEventListener('click', () => {
  setSide(true);
  if (narrow.matches) $('close-side').focus();
});
$('close-side').addEventListener('click', () => {
  setSide(false);
  $('open-side').focus();
});
$('shade').addEventListener('click', closeSide);
narrow.addEventListener('change', () => setSide(!narrow.matches && localStorage.getItem('side') !== '0'));

$('new').addEventListener('click', () => {
  closeSide();
  saveDraft();
  fresh();
});
$('settings').addEventListener('click', () => openSettings(chat, server, {
  error,
  async saved(system, settings) {
    if (chat.id) await api.change(chat.id, { system, settings });
    chat.system = system;
    chat.settings = settings;
    drawThink();
  },
  language: redraw,
  imported: () => sidebar.load(),
  wiped() {
    fresh();
    sidebar.load();
  },
}));

function redraw() {
  words();
  sidebar.draw();
  for (const v of chat.views.values()) v.el.remove();
  chat.views.clear();
  if (chat.id) chat.draw();
  else chat.clear();
}

// ---- Keys that work everywhere ----

addEventListener('keydown', (e) => {
  if (e.isComposing) return;
  const ctrl = e.ctrlKey || e.metaKey;
  if (ctrl && !e.shiftKey && e.key.toLowerCase() === 'k') {
    e.preventDefault();
    setSide(true);
    $('search').focus();
    $('search').select();
  } else if (ctrl && e.shiftKey && e.key.toLowerCase() === 'o') {
    e.preventDefault();
    closeSide();
    fresh();
  } else if (e.key === 'Escape' && !e.defaultPrevented && !document.querySelector('dialog[open]')) {
    if (narrow.matches && document.body.classList.contains('side-open')) {
      setSide(false);
      $('open-side').focus();
    } else if (chat.running) {
      e.preventDefault();
      chat.stop();
    }
  }
});

// A page that comes back (a phone's screen, a sleeping lid) looks whether it missed something.
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible' && chat.id && !chat.leave) chat.reload().catch(error);
});

// ---- Start ----

let asking;
hooks.askKey = () => (asking ??= promptBox(t('askKey'), '').finally(() => (asking = undefined)));

async function loadState() {
  server = await api.state();
  $('model').textContent = server.model;
  drawBar(chat);
}

words();
setSide(!narrow.matches && localStorage.getItem('side') !== '0');
chat.clear();
$('ask').value = draft(Number(location.hash.slice(1)));
fit();
drawSend();
loadState().catch(error);
sidebar.load();
if (Number(location.hash.slice(1))) open(Number(location.hash.slice(1)));
else $('ask').focus();
navigator.serviceWorker?.register(scriptURL('/sw.js')).catch(() => {}); // not with a self-signed certificate: then no offline shell
