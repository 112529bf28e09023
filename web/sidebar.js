// The list of chats: by day, pinned ones first, with search, and a menu for each.
import { h, iconButton, download } from './dom.js';
import { t, dayGroup } from './i18n.js';
import { api } from './api.js';
import { confirmBox, promptBox } from './dialog.js';

const PAGE = 200;

export class Sidebar {
  // hooks: open(id), removed(id), renamed(id, title), error(e)
  menu = null;

  constructor(list, search, hooks) {
    this.list = list;
    this.search = search;
    this.hooks = hooks;
    this.chats = [];
    this.current = null;
    let timer;
    search.addEventListener('input', () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.find(), 150);
    });
    search.addEventListener('keydown', (e) => {
      if (e.key === 'ArrowDown') {
        e.preventDefault();
        list.querySelector('a')?.focus();
      } else if (e.key === 'Escape' && search.value) {
        e.preventDefault();
        e.stopPropagation();
        search.value = '';
        this.draw();
      }
    });
    list.addEventListener('keydown', (e) => this.key(e));
    document.addEventListener('click', (e) => {
      if (this.menu && !e.target.closest('.menu, .chat-more')) this.closeMenu();
    });
  }

  async load(more) {
    try {
      const offset = more ? this.chats.length : 0, page = await api.chats(offset);
      this.chats = more ? this.chats.concat(page) : page;
      this.more = page.length === PAGE;
      if (!this.search.value) this.draw();
    } catch (e) {
      this.hooks.error(e);
    }
  }

  async find() {
    const q = this.search.value.trim();
    if (!q) return this.draw();
    try {
      const rows = await api.search(q);
      if (this.search.value.trim() !== q) return undefined;
      const items = rows.map((r) => h('li', null, h('a', { href: `#${r.chat}`, class: 'chat-link found', onclick: (e) => this.go(e, r.chat) },
        h('span', { class: 'chat-title' }, r.title || t('untitled')), h('span', { class: 'excerpt' }, this.marked(r.excerpt)))));
      this.closeMenu();
      this.list.replaceChildren(h('h2', null, t('searchResults')), items.length ? h('ul', null, items) : h('p', { class: 'faint', role: 'status' }, t('nothingFound')));
    } catch (e) {
      this.hooks.error(e);
    }
    return undefined;
  }

  // Matches stand between U+0002 and U+0003.
  marked(text) {
    return text.split(/(\u0002[^\u0003]*\u0003)/).map((s) => (s.startsWith('\u0002') ? h('mark', null, s.slice(1, -1)) : s));
  }

  go(e, id) {
    if (e.ctrlKey || e.metaKey || e.shiftKey) return;
    e.preventDefault();
    this.hooks.open(id);
  }

  select(id) {
    this.current = id;
    for (const a of this.list.querySelectorAll('a')) {
      if (a.hash === `#${id}`) a.setAttribute('aria-current', 'page');
      else a.removeAttribute('aria-current');
    }
  }

  // An open menu is not pulled away from under a hand, and the focus stays with its chat.
  draw() {
    if (this.menu) {
      this.stale = true;
      return;
    }
    this.stale = false;
    const focused = this.list.contains(document.activeElement) ? document.activeElement.closest('li')?.dataset.id : null;
    const inMenu = document.activeElement?.classList.contains('chat-more');
    this.build();
    if (focused) this.focusRow(focused, inMenu);
  }

  focusRow(id, button) {
    this.list.querySelector(`li[data-id="${id}"] ${button ? '.chat-more' : 'a'}`)?.focus();
  }

  build() {
    const parts = [];
    let group = null, ul;
    for (const c of this.chats) {
      const name = c.pinned ? t('pinned') : dayGroup(c.changed);
      if (name !== group) {
        ul = h('ul');
        parts.push(h('h2', null, name), ul);
        group = name;
      }
      ul.append(this.row(c));
    }
    if (!parts.length) parts.push(h('p', { class: 'faint' }, t('noChats')));
    if (this.more) parts.push(h('button', { type: 'button', class: 'plain-button', onclick: () => this.load(true) }, t('moreChats')));
    this.list.replaceChildren(...parts);
  }

  row(c) {
    const title = c.title || t('untitled');
    const more = iconButton('more', t('chatMenu', { title }), () => this.openMenu(c, li, more), { class: 'icon-button chat-more', 'aria-haspopup': 'menu', 'aria-expanded': 'false' });
    const li = h('li', { 'data-id': c.id }, h('a', { href: `#${c.id}`, class: 'chat-link', title, 'aria-current': c.id === this.current ? 'page' : undefined, onclick: (e) => this.go(e, c.id) },
      h('span', { class: 'chat-title' }, title)), more);
    return li;
  }

  openMenu(c, li, button) {
    const again = this.menu?.button === button;
    this.closeMenu();
    if (again) return;
    const item = (label, f, cls) => h('button', { type: 'button', role: 'menuitem', class: cls, onclick: async () => {
      this.closeMenu();
      try {
        await f();
      } catch (e) {
        this.hooks.error(e);
      }
      if (!this.menu) this.focusRow(c.id, true);
    } }, label);
    const el = h('div', { class: 'menu', role: 'menu', 'aria-label': t('chatMenu', { title: c.title }) },
      item(t('rename'), async () => {
        const title = await promptBox(t('renameTitle'), c.title);
        if (!title) return;
        await api.change(c.id, { title });
        this.hooks.renamed(c.id, title);
        await this.load();
      }),
      item(c.pinned ? t('unpin') : t('pin'), async () => {
        await api.change(c.id, { pinned: !c.pinned });
        await this.load();
      }),
      item(t('exportMd'), async () => download(`${this.fileName(c)}.md`, 'text/markdown', await api.exportChats('md', c.id))),
      item(t('exportJson'), async () => download(`${this.fileName(c)}.json`, 'application/json', await api.exportChats('json', c.id))),
      item(t('remove'), async () => {
        if (!(await confirmBox(t('removeChat', { title: c.title }), t('cannotUndo'), t('remove')))) return;
        await api.remove(c.id);
        this.hooks.removed(c.id);
        await this.load();
      }, 'danger'));
    el.addEventListener('keydown', (e) => {
      const all = [...el.children], i = all.indexOf(document.activeElement);
      if (e.key === 'ArrowDown') all[(i + 1) % all.length].focus();
      else if (e.key === 'ArrowUp') all[(i + all.length - 1) % all.length].focus();
      else if (e.key === 'Escape' || e.key === 'Tab') {
        this.closeMenu();
        this.focusRow(c.id, true);
      } else return;
      e.stopPropagation();
      e.preventDefault();
    });
    li.append(el);
    button.setAttribute('aria-expanded', 'true');
    this.menu = { el, button };
    el.firstChild.focus();
    el.scrollIntoView({ block: 'nearest' });
  }

  closeMenu() {
    this.menu?.el.remove();
    this.menu?.button.setAttribute('aria-expanded', 'false');
    this.menu = null;
    if (this.stale) this.draw();
  }

  fileName(c) { return (c.title || 'chat').replace(/[^\p{L}\p{N}]+/gu, '-').slice(0, 50) || 'chat'; }

  // Up and down through the links.
  key(e) {
    if ((e.key !== 'ArrowDown' && e.key !== 'ArrowUp') || this.menu) return;
    const all = [...this.list.querySelectorAll('a')], i = all.indexOf(document.activeElement);
    if (i < 0) return;
    e.preventDefault();
    const to = all[i + (e.key === 'ArrowDown' ? 1 : -1)];
    if (to) to.focus();
    else if (e.key === 'ArrowUp') this.search.focus();
  }
}
