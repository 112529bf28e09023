// The conversation in the middle: the shown branch of a chat's tree, and the answer that is running in it.
import { h, iconButton } from './dom.js';
import { t } from './i18n.js';
import { api, follow } from './api.js';
import { MessageView } from './message.js';
import { confirmBox } from './dialog.js';

export class Chat {
  // hooks: changed(chat) when title, context or running change; error(e); speaker
  constructor(root, hooks) {
    this.root = root;
    this.hooks = hooks;
    this.views = new Map();
    this.newest = iconButton('down', t('newest'), () => this.toEnd(true), { class: 'icon-button newest', hidden: true });
    root.after(this.newest);
    root.addEventListener('scroll', () => {
      this.atEnd = root.scrollHeight - root.scrollTop - root.clientHeight < 60;
      this.newest.hidden = this.atEnd;
    }, { passive: true });
  }
  byId = new Map(); // all messages of the chat
  settings = {};

  clear() {
    this.leave?.abort();
    this.leave = null;
    this.id = null;
    this.title = '';
    this.system = '';
    this.settings = {};
    this.head = null;
    this.byId = new Map();
    this.views.clear();
    this.atEnd = true;
    this.newest.hidden = true;
    this.root.replaceChildren(h('div', { class: 'greeting' }, h('h2', null, t('greeting')), h('p', { class: 'faint' }, t('greetingText'))));
    this.hooks.changed(this);
  }

  async open(id) {
    const chat = await api.chat(id);
    this.clear();
    this.take(chat);
    this.toEnd(true);
  }

  take(chat) {
    this.id = chat.id;
    this.title = chat.title;
    this.system = chat.system;
    this.settings = chat.settings;
    this.byId = new Map(chat.messages.map((m) => [m.id, m]));
    this.head = this.byId.has(chat.head) ? chat.head : null;
    this.draw();
    this.pickUp();
  }

  async reload() {
    if (this.id) this.take(await api.chat(this.id));
  }

  // ---- The tree ----

  siblings(m) { return [...this.byId.values()].filter((o) => o.parent === m.parent && o.role === m.role); }
  // The newest leaf below a message.
  leaf(m) {
    for (;;) {
      const next = [...this.byId.values()].filter((o) => o.parent === m.id).pop();
      if (!next) return m;
      m = next;
    }
  }
  path() {
    const list = [];
    for (let m = this.byId.get(this.head); m; m = this.byId.get(m.parent)) list.unshift(m);
    return list;
  }
  get last() { return this.byId.get(this.head); }
  get running() { return [...this.byId.values()].find((m) => m.state === 'running'); }

  // ---- Drawing ----

  draw() {
    const path = this.path(), keep = new Set(path.map((m) => m.id));
    for (const [id, v] of this.views) if (!keep.has(id)) {
      v.el.remove();
      this.views.delete(id);
    }
    if (path.length) this.root.querySelector('.greeting')?.remove();
    let at = this.root.firstElementChild;
    for (const m of path) {
      const all = this.siblings(m), versions = [all.indexOf(m) + 1, all.length];
      let v = this.views.get(m.id);
      if (!v) {
        v = new MessageView(m, this.actions());
        v.ondraw = () => this.toEnd();
        this.views.set(m.id, v);
      }
      v.show(m, versions);
      if (at !== v.el) this.root.insertBefore(v.el, at);
      else at = at.nextElementSibling;
    }
    this.hooks.changed(this);
    this.toEnd();
  }

  toEnd(force) {
    if (force) this.atEnd = true;
    if (this.atEnd) this.root.scrollTop = this.root.scrollHeight;
  }

  actions() {
    const guarded = (f) => async (...a) => {
      try {
        await f(...a);
      } catch (e) {
        this.hooks.error(e);
      }
    };
    return {
      edit: guarded((m, text) => this.send(text, m.parent)),
      regenerate: guarded((m) => this.begin({ parent: m.parent })),
      resume: guarded((m) => this.begin({ continue: m.id })),
      remove: guarded(async (m) => {
        if (!(await confirmBox(t('removeMessage'), t('cannotUndo'), t('remove')))) return;
        const others = this.siblings(m).filter((o) => o !== m);
        await api.removeMessage(m.id);
        if (others.length) await api.change(this.id, { head: this.leaf(others.at(-1)).id });
        this.leave?.abort();
        await this.reload();
      }),
      turn: guarded(async (m, step) => {
        const all = this.siblings(m), to = all[all.indexOf(m) + step];
        if (!to) return;
        this.head = this.leaf(to).id;
        this.draw();
        this.pickUp();
        this.views.get(to.id)?.el.querySelector(`.versions button:${step < 0 ? 'first' : 'last'}-of-type`)?.focus();
        await api.change(this.id, { head: this.head });
      }),
    };
  }

  // ---- Asking ----

  // parent undefined: after what is shown; null: as the first message
  async send(text, parent) {
    const r = await api.ask({ chat: this.id, parent: parent === undefined ? this.head : parent, text, system: this.id ? undefined : this.system,
      settings: this.id ? undefined : this.settings });
    await this.started(r);
  }

  async begin(what) {
    await this.started(await api.answer(what));
  }

  async started(r) {
    this.leave?.abort();
    this.leave = null;
    this.take(await api.chat(r.chat));
    this.toEnd(true);
    if (this.isNew !== r.chat) this.hooks.started?.(r.chat);
    this.isNew = r.chat;
  }

  stop() {
    const m = this.running;
    if (m) api.stop(m.id).catch((e) => this.hooks.error(e));
  }

  // Follow the answer that is running in the shown branch, from its text so far.
  async pickUp() {
    const m = this.path().find((o) => o.state === 'running');
    if (!m || (this.leave && this.following === m.id)) return;
    this.leave?.abort();
    const leave = (this.leave = new AbortController()), { speaker } = this.hooks;
    this.following = m.id;
    speaker.clear();
    let done = false;
    for await (const e of follow(m, leave.signal)) {
      if (leave.signal.aborted) return;
      if (e.t === 'text') speaker.add(e.d);
      if (e.t === 'think' && !m.thinking) speaker.say(t('thinking'));
      const view = this.views.get(m.id);
      view?.event(e);
      if (e.t === 'done') done = true;
      this.toEnd();
    }
    if (leave.signal.aborted) return;
    this.leave = null;
    speaker.end(t('answerDone'));
    if (!done) await this.reload().catch((e) => this.hooks.error(e));
    this.hooks.changed(this);
    this.hooks.finished?.();
  }
}
