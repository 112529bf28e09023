// The dialog of settings: system prompt and sampling of this chat; appearance, language, all chats.
import { h, iconButton, download } from './dom.js';
import { t, lang, names, setLanguage } from './i18n.js';
import { api } from './api.js';
import { confirmBox, notice } from './dialog.js';

const fields = [ // key, words, step, min, max; the server checks again
  ['temperature', 'temperature', 0.05, 0, 2], ['top_p', 'topP', 0.01, 0.01, 1], ['top_k', 'topK', 1, 0, 1000], ['min_p', 'minP', 0.01, 0, 1],
  ['repetition_penalty', 'repetition', 0.01, 0.5, 2], ['max_tokens', 'maxTokens', 1, 0, 1000000], ['seed', 'seed', 1, 0, 9007199254740991],
];

export function setTheme(theme) {
  if (theme) {
    localStorage.setItem('theme', theme);
    document.documentElement.dataset.theme = theme;
  } else {
    localStorage.removeItem('theme');
    delete document.documentElement.dataset.theme;
  }
}

function row(label, control, id) {
  control.id = id;
  return h('div', { class: 'row' }, h('label', { for: id }, label), control);
}

// chat: { id, system, settings }; hooks: saved(system, settings), language(), imported(), wiped(), error(e)
export function openSettings(chat, server, hooks) {
  const box = h('dialog', { class: 'settings', 'aria-labelledby': 'settings-title' });
  const system = h('textarea', { rows: 4, maxlength: 100000 });
  system.value = chat.system || '';
  const defaults = server.sampling || {}, inputs = new Map();
  const rows = fields.map(([key, word, step, min, max]) => {
    const input = h('input', { type: 'number', step: key === 'max_tokens' || key === 'seed' || key === 'top_k' ? 1 : 'any', 'data-step': step, min, max, inputmode: 'decimal',
      placeholder: defaults[key] === undefined ? '' : String(Number(defaults[key].toFixed(4))) });
    if (chat.settings[key] !== undefined && chat.settings[key] !== null) input.value = chat.settings[key];
    inputs.set(key, input);
    return row(t(word), input, `set-${key}`);
  });
  const choice = (options, value, onchange) => {
    const s = h('select', { onchange: () => onchange(s.value) }, options.map(([v, label]) => h('option', { value: v }, label)));
    s.value = value;
    return s;
  };
  const theme = choice([['', t('system')], ['light', t('light')], ['dark', t('dark')]], localStorage.getItem('theme') || '', setTheme);
  const language = choice([['', t('asBrowser')], ...Object.entries(names)], localStorage.getItem('lang') ? lang : '', (l) => {
    setLanguage(l);
    box.close();
    hooks.language();
  });
  const file = h('input', { type: 'file', accept: 'application/json,.json', class: 'hidden-label', tabindex: -1, 'aria-label': t('importChats'), onchange: async () => {
    try {
      const r = await api.importChats(JSON.parse(await file.files[0].text()));
      notice(t('imported', { n: r.chats }));
      hooks.imported();
    } catch (e) {
      hooks.error(e);
    }
    file.value = '';
  } });
  const guarded = (f) => () => f().catch(hooks.error);
  const form = h('form', { onsubmit: async (e) => {
    e.preventDefault();
    const settings = {};
    if (chat.settings.thinking !== undefined) settings.thinking = chat.settings.thinking;
    for (const [key, input] of inputs) if (input.value !== '') settings[key] = Number(input.value);
    try {
      await hooks.saved(system.value, settings);
      box.close();
    } catch (err) {
      hooks.error(err);
    }
  } },
  h('header', null, h('h2', { id: 'settings-title' }, t('settings')), iconButton('close', t('close'), () => box.close())),
  h('fieldset', null, h('legend', null, t('chatSettings')), row(t('systemPrompt'), system, 'set-system'), h('div', { class: 'grid' }, rows),
    h('div', { class: 'buttons' }, h('button', { type: 'button', class: 'plain-button', onclick: () => inputs.forEach((i) => (i.value = '')) }, t('defaults')),
      h('button', { type: 'submit', class: 'main-button' }, t('save')))),
  h('fieldset', null, h('legend', null, t('general')), row(t('theme'), theme, 'set-theme'), row(t('language'), language, 'set-language'),
    h('div', { class: 'buttons' },
      h('button', { type: 'button', class: 'plain-button', onclick: guarded(async () => download('hadal-chats.json', 'application/json', await api.exportChats('json'))) }, t('exportAll')),
      h('button', { type: 'button', class: 'plain-button', onclick: () => file.click() }, t('importChats')), file,
      h('button', { type: 'button', class: 'plain-button danger', onclick: guarded(async () => {
        if (!(await confirmBox(t('removeAllAsk'), t('cannotUndo'), t('remove')))) return;
        await api.removeAll();
        box.close();
        hooks.wiped();
      }) }, t('removeAll')))),
  h('p', { class: 'faint' }, `${t('model')}: ${server.model || ''} · hadal ${server.version || ''}`),
  h('p', { class: 'faint' }, h('strong', null, `${t('shortcuts')}: `), t('keyList')));
  box.append(form);
  box.addEventListener('close', () => box.remove());
  document.body.append(box);
  box.showModal();
}
