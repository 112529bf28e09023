// Formulas: KaTeX runs in a worker (math-worker.js) that sends a tree of plain data; here it becomes elements, from lists of what is
// allowed.  Until it is there, and where it is refused, the formula's source is shown.
import { h } from './dom.js';
import { Helper } from './worker.js';

const MAX_TEX = 2000, MAX_NODES = 20000, MAX_KEPT = 500;
// What could define macros, reach outside, or make attributes.
const refused = /\\(?:[egx]?def|(?:re|provide)?newcommand|global|long|(?:future)?let|html\w*|href|url|includegraphics|char(?![a-z])|catcode|csname|input|include|require|write|openin|read)(?![a-zA-Z])/;

const namespaces = { h: null, s: 'http://www.w3.org/2000/svg', m: 'http://www.w3.org/1998/Math/MathML' };
const tags = {
  h: new Set(['span']),
  s: new Set(['svg', 'path', 'line']),
  m: new Set(['math', 'semantics', 'annotation', 'mrow', 'mi', 'mn', 'mo', 'ms', 'mtext', 'mspace', 'mfrac', 'msqrt', 'mroot', 'mstyle', 'msub', 'msup',
    'msubsup', 'munder', 'mover', 'munderover', 'mtable', 'mtr', 'mtd', 'mpadded', 'mphantom', 'menclose', 'mglyph', 'mlabeledtr', 'merror']),
};
const attributes = new Set(['aria-hidden', 'viewBox', 'preserveAspectRatio', 'width', 'height', 'd', 'x1', 'x2', 'y1', 'y2', 'stroke-width', 'fill', 'stroke',
  'xmlns', 'encoding', 'display', 'mathvariant', 'stretchy', 'fence', 'separator', 'lspace', 'rspace', 'linethickness', 'displaystyle', 'scriptlevel', 'accent',
  'accentunder', 'columnalign', 'columnspacing', 'rowspacing', 'columnlines', 'rowlines', 'columnspan', 'minsize', 'maxsize', 'movablelimits', 'symmetric', 'voffset',
  'mathcolor', 'mathbackground', 'mathsize', 'notation', 'depth', 'largeop', 'form', 'title', 'side', 'frame', 'framespacing', 'height', 'align', 'width', 'texClass']);
const styles = new Set(['height', 'width', 'minWidth', 'maxWidth', 'verticalAlign', 'top', 'bottom', 'left', 'right', 'marginRight', 'marginLeft', 'marginTop', 'marginBottom',
  'paddingLeft', 'paddingRight', 'paddingTop', 'borderBottomWidth', 'borderTopWidth', 'borderRightWidth', 'borderLeftWidth', 'borderWidth', 'borderColor', 'borderStyle',
  'borderRightStyle', 'color', 'backgroundColor', 'position', 'display', 'textShadow', 'fontSize', 'boxSizing']);

function build(node, budget) {
  if (typeof node === 'string') return document.createTextNode(node);
  if (--budget.nodes < 0) throw new RangeError('formula too large');
  const [ns, tag, cls, style, attrs, children] = node;
  if (!tags[ns]?.has(tag)) return document.createTextNode('');
  const el = namespaces[ns] ? document.createElementNS(namespaces[ns], tag) : document.createElement(tag);
  if (cls) el.setAttribute('class', cls.replace(/[^\w\s-]/g, ''));
  for (const [k, v] of Object.entries(attrs)) if (attributes.has(k)) el.setAttribute(k, v);
  for (const [k, v] of Object.entries(style)) if (styles.has(k) && !/url|[;:{}\\]/i.test(v)) el.style[k] = v; // CSSOM: the CSP's style-src is for markup
  for (const c of children) el.append(build(c, budget));
  return el;
}

let helper, sheet;
// KaTeX, its style sheet and fonts are loaded with the first formula.
function worker() {
  if (!sheet) {
    sheet = h('link', { rel: 'stylesheet', href: new URL('./katex.css', import.meta.url).href });
    document.head.append(sheet);
  }
  helper ??= new Helper(new URL('./math-worker.js', import.meta.url).href, 200);
  return helper;
}

const known = new Map(); // source to tree (null: cannot be shown as a formula), or a promise of it

function place(el, tree, tex) {
  try {
    el.replaceChildren(build(tree, { nodes: MAX_NODES }));
    el.classList.remove('math-source');
  } catch {
    el.textContent = tex;
  }
}

export function math(tex, display) {
  const el = h('span', { class: `${display ? 'math-display ' : ''}math-source` }, tex);
  if (tex.length > MAX_TEX || refused.test(tex)) return el;
  const key = (display ? '1' : '0') + tex;
  const have = known.get(key);
  if (Array.isArray(have)) place(el, have, tex);
  if (have !== undefined && !(have instanceof Promise)) return el;
  const coming = have || worker().run({ tex, display }).then((tree) => {
    known.set(key, tree);
    return tree;
  });
  if (!have) {
    if (known.size >= MAX_KEPT) known.delete(known.keys().next().value);
    known.set(key, coming);
  }
  coming.then((tree) => tree && place(el, tree, tex));
  return el;
}
