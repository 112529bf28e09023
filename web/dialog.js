// Small dialogs: a question with two answers, a line of text, a notice that goes by itself.
import { h } from './dom.js';
import { t } from './i18n.js';

function show(build) {
  return new Promise((done) => {
    const box = h('dialog', { class: 'small-dialog' });
    let result = null;
    const close = (r) => {
      result = r;
      box.close();
    };
    box.append(build(close));
    box.addEventListener('close', () => {
      box.remove();
      done(result);
    });
    document.body.append(box);
    box.showModal();
  });
}

export const confirmBox = (title, text, action) => show((close) => h('form', { method: 'dialog', onsubmit: (e) => {
  e.preventDefault();
  close(true);
} }, h('h2', null, title), h('p', null, text), h('div', { class: 'buttons' },
  h('button', { type: 'button', class: 'plain-button', onclick: () => close(false) }, t('cancel')), h('button', { type: 'submit', class: 'main-button danger' }, action))));

export const promptBox = (title, value) => show((close) => {
  const input = h('input', { type: 'text', value, maxlength: 150, 'aria-label': title, required: true });
  return h('form', { onsubmit: (e) => {
    e.preventDefault();
    if (input.value.trim()) close(input.value.trim());
  } }, h('h2', null, title), input, h('div', { class: 'buttons' },
    h('button', { type: 'button', class: 'plain-button', onclick: () => close(null) }, t('cancel')), h('button', { type: 'submit', class: 'main-button' }, t('save'))));
});

let toast, timer;
export function notice(text, sticky) {
  toast ??= document.body.appendChild(h('div', { class: 'toast', role: 'status' }));
  clearTimeout(timer);
  toast.textContent = text;
  toast.classList.toggle('shown', !!text);
  if (text && !sticky) timer = setTimeout(() => toast.classList.remove('shown'), 6000);
}
