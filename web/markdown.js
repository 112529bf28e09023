// Markdown to DOM nodes while it streams.
//
// marked's lexer gives tokens (its HTML output is never used); here each token becomes elements made by h().  A text that grows keeps
// the nodes of the blocks that did not change, so that nothing flickers and a selection survives; only the last block is made anew, and
// of a code block only the text is set.  HTML in an answer is shown as the text it is; images become links, since the page
// loads nothing from elsewhere.
import './marked.js';
import { h, copyButton } from './dom.js';
import { t } from './i18n.js';
import { math } from './math.js';
import { highlight } from './code.js';

const { marked } = globalThis;

// $...$ and \(...\) inside a line, $$...$$ and \[...\] as blocks or inside one.  A single $ counts only where a formula is likely: no
// space just inside, no digit just after, so that "$5 and $6" stays money.
const inlineMath = /^\\\(([\s\S]+?)\\\)|^\\\[([\s\S]+?)\\\]|^\$\$([\s\S]+?)\$\$|^\$((?:\\[^]|[^\\$\n])+?)\$(?!\d)/;
const blockMath = /^ {0,3}(?:\$\$([\s\S]+?)\$\$|\\\[([\s\S]+?)\\\])[ \t]*(?:\n+|$)/;
marked.setOptions({ mangle: false, gfm: true, breaks: true, headerIds: false, smartLists: false });
marked.use({
  extensions: [
    {
      name: 'math',
      level: 'inline',
      start(src) {
        const i = src.search(/\$|\\[([]/);
        return i < 0 ? undefined : i;
      },
      tokenizer(src) {
        const m = inlineMath.exec(src);
        if (!m || (m[4] && (/^\s|\s$/.test(m[4])))) return undefined;
        return { type: 'math', raw: m[0], tex: m[1] ?? m[2] ?? m[3] ?? m[4], display: m[2] !== undefined || m[3] !== undefined };
      },
    },
    {
      name: 'mathBlock',
      level: 'block',
      start(src) {
        const m = /(?:^|\n) {0,3}(?:\$\$|\\\[)/.exec(src);
        return m ? m.index + (src[m.index] === '\n' ? 1 : 0) : undefined;
      },
      tokenizer(src) {
        const m = blockMath.exec(src);
        return m ? { type: 'mathBlock', raw: m[0], tex: m[1] ?? m[2] } : undefined;
      },
    },
  ],
});

const entities = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'", nbsp: '\u00a0', copy: '©', reg: '®', hellip: '…', mdash: '—', ndash: '–',
  rarr: '→', larr: '←', times: '×', deg: '°', plusmn: '±', infin: '∞', ne: '≠', le: '≤', ge: '≥', middot: '·', euro: '€', laquo: '«', raquo: '»' };
function unescape(s) {
  return s.replace(/&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|(\w{2,8}));/g, (all, dec, hex, name) => {
    if (name) return entities[name] ?? all;
    const c = dec ? Number(dec) : parseInt(hex, 16);
    return c > 0 && c < 0x110000 && !(c >= 0xd800 && c < 0xe000) ? String.fromCodePoint(c) : '\ufffd';
  });
}

// An address that a click may open: the web and mail, nothing that runs.
function safeURL(href) {
  try {
    const u = new URL(unescape(href));
    return ['http:', 'https:', 'mailto:'].includes(u.protocol) ? u.href : null;
  } catch {
    return null;
  }
}

function link(token, children) {
  const href = safeURL(token.href || '');
  if (!href) return [...children, token.href ? ` (${token.href})` : ''];
  return h('a', { href, title: token.title || undefined, target: '_blank', rel: 'noopener noreferrer' }, children);
}

const MAX_DEPTH = 40;
function inline(tokens, depth) {
  if (depth > MAX_DEPTH) return (tokens || []).map((k) => k.raw);
  return (tokens || []).map((k) => {
    switch (k.type) {
      case 'strong': return h('strong', null, inline(k.tokens, depth + 1));
      case 'em': return h('em', null, inline(k.tokens, depth + 1));
      case 'del': return h('del', null, inline(k.tokens, depth + 1));
      case 'codespan': return h('code', null, unescape(k.text));
      case 'br': return h('br');
      case 'link': return link(k, inline(k.tokens, depth + 1));
      case 'image': return link(k, [`${t('image')}: ${unescape(k.text || '')}`]);
      case 'math': return math(k.tex, k.display);
      case 'escape': return unescape(k.text);
      case 'text': return k.tokens ? inline(k.tokens, depth + 1) : unescape(k.text);
      default: return k.raw; // HTML, and whatever else: as written
    }
  });
}

function codeBlock(k) {
  const lang = (k.lang || '').trim().split(/\s+/)[0].slice(0, 30);
  const code = h('code');
  const node = h('div', { class: 'code' },
    h('div', { class: 'code-bar' }, h('span', null, lang || t('code')), copyButton(t('copyCode'), t('copied'), () => code.textContent)),
    h('pre', { tabindex: 0 }, code));
  node.update = (token, open) => highlight(code, token.text, lang, open);
  return node;
}

function table(k, depth) {
  const align = (i) => (k.align[i] ? { class: `to-${k.align[i]}` } : null);
  const head = h('tr', null, k.header.map((c, i) => h('th', { scope: 'col', ...align(i) }, inline(c.tokens, depth))));
  const rows = k.rows.map((r) => h('tr', null, r.map((c, i) => h('td', align(i), inline(c.tokens, depth)))));
  return h('div', { class: 'table', tabindex: 0, role: 'group' }, h('table', null, h('thead', null, head), h('tbody', null, rows)));
}

function list(k, depth) {
  const items = k.items.map((item) => {
    const box = item.task ? h('input', { type: 'checkbox', disabled: true, checked: item.checked, 'aria-label': item.checked ? '✓' : '–' }) : null;
    return h('li', item.task ? { class: 'task' } : null, box, blocks(item.tokens, depth + 1, item.loose));
  });
  return h(k.ordered ? 'ol' : 'ul', k.ordered && k.start !== 1 ? { start: k.start } : null, items);
}

function block(k, depth, loose = true) {
  switch (k.type) {
    case 'space':
    case 'def': return null;
    case 'heading': return h(`h${Math.min(6, k.depth + 2)}`, null, inline(k.tokens, depth)); // h1 and h2 are the page's
    case 'paragraph': return h('p', null, inline(k.tokens, depth));
    case 'text': return loose ? h('p', null, inline(k.tokens || [k], depth)) : inline(k.tokens || [k], depth);
    case 'code': return codeBlock(k);
    case 'blockquote': return h('blockquote', null, blocks(k.tokens, depth + 1));
    case 'list': return list(k, depth);
    case 'table': return table(k, depth);
    case 'hr': return h('hr');
    case 'mathBlock': return h('div', { class: 'math-block', tabindex: 0, role: 'group' }, math(k.tex, true));
    default: return h('p', null, k.raw);
  }
}

function blocks(tokens, depth, loose) {
  if (depth > MAX_DEPTH) return (tokens || []).map((k) => k.raw);
  return (tokens || []).map((k) => {
    const node = block(k, depth, loose);
    node?.update?.(k, false);
    return node;
  });
}

// A code fence that is not closed yet.
const isOpen = (k) => k.type === 'code' && /^ {0,3}(`{3,}|~{3,})/.test(k.raw) && !/\n {0,3}(`{3,}|~{3,}) *\n*$/.test(k.raw);

// One message's text in `root`: set(text, streaming) any number of times.
export class Markdown {
  constructor(root) {
    this.root = root;
    this.shown = []; // { raw, type, node } of each top-level block
    this.done = 0;   // characters of the text whose blocks cannot change any more
    this.text = '';
    this.links = '';
  }

  set(text, streaming) {
    // As marked's lexer does, so that the tokens' raw texts add up to the source.
    text = text.replace(/\r\n|\r/g, '\n').replace(/^( *)(\t+)/gm, (_, a, b) => a + '    '.repeat(b.length));
    if (!text.startsWith(this.text.slice(0, this.done))) this.reset();
    // A link's definition may come after its use: with a new one, all is read again.
    const links = text.match(/^ {0,3}\[[^\]\n]+\]:\s*\S.*$/gm)?.join('\n') || '';
    if (links !== this.links) this.reset();
    this.links = links;
    this.text = text;
    let tokens;
    try {
      tokens = marked.lexer(this.done ? text.slice(this.done) : text);
    } catch { // nested beyond what the lexer's recursion can do
      tokens = [{ type: 'plain', raw: text.slice(this.done) }];
    }
    this.update(tokens, streaming);
    // All but the last two blocks are final: what is still to come can join on to the last one only (and a space between).
    if (!streaming) return;
    while (this.kept + 3 < this.shown.length) this.done += this.shown[this.kept++].raw.length;
  }

  reset() {
    this.done = this.kept = 0;
    this.shown.splice(0).forEach((s) => s.node?.remove());
  }
  kept = 0;

  update(tokens, streaming) {
    const old = this.shown.slice(this.kept);
    let same = 0;
    while (same < old.length && same < tokens.length && old[same].raw === tokens[same].raw && !old[same].open) same++;
    tokens.slice(same).forEach((k, i) => {
      const was = old[same + i], last = same + i === tokens.length - 1;
      const open = streaming && last && isOpen(k);
      if (was?.node?.update && k.type === 'code' && was.type === 'code' && was.lang === k.lang) {
        was.node.update(k, open);
        Object.assign(was, { raw: k.raw, open });
        return;
      }
      const node = k.type === 'plain' ? h('p', { class: 'plain' }, k.raw) : block(k, 0);
      node?.update?.(k, open);
      const entry = { raw: k.raw, type: k.type, lang: k.lang, node, open };
      if (was) {
        if (was.node && node) was.node.replaceWith(node);
        else if (was.node) was.node.remove();
        else if (node) this.insert(node, this.kept + same + i);
        this.shown[this.kept + same + i] = entry;
      } else {
        if (node) this.root.append(node);
        this.shown.push(entry);
      }
    });
    this.shown.splice(this.kept + tokens.length).forEach((s) => s.node?.remove());
  }

  insert(node, at) {
    const next = this.shown.slice(at + 1).find((s) => s.node);
    this.root.insertBefore(node, next ? next.node : null);
  }
}
