// KaTeX away from the page: no DOM here, so its tree is built into a document of our own that only takes notes, and those are sent.
import './katex.js';

class Note {
  constructor(ns, tag) {
    this.ns = ns;
    this.tag = tag;
    this.className = '';
    this.style = {};
    this.attrs = {};
    this.children = [];
  }
  setAttribute(k, v) {
    if (k === 'class') this.className = v;
    else if (k !== 'style') this.attrs[k] = String(v);
  }
  appendChild(c) {
    this.children.push(c);
  }
}
const kinds = { 'http://www.w3.org/2000/svg': 's', 'http://www.w3.org/1998/Math/MathML': 'm' };
self.document = {
  createElement: (tag) => new Note('h', tag),
  createElementNS: (ns, tag) => new Note(kinds[ns] || 'h', tag),
  createTextNode: (text) => String(text),
  createDocumentFragment: () => new Note('f', ''),
};

function flat(n) {
  if (typeof n === 'string') return [n];
  const children = n.children.flatMap(flat);
  if (n.ns === 'f') return children;
  const style = {};
  for (const [k, v] of Object.entries(n.style)) style[k] = String(v);
  return [[n.ns, n.tag, n.className, style, n.attrs, children]];
}

self.onmessage = ({ data }) => {
  let tree = null;
  try {
    const dom = self.katex.__renderToDomTree(data.tex, {
      displayMode: data.display, throwOnError: true, trust: false, strict: 'ignore', maxSize: 20, maxExpand: 300, output: 'htmlAndMathml', macros: {},
    });
    [tree] = flat(dom.toNode());
  } catch { /* not a formula that KaTeX knows: its source is shown */ }
  postMessage(tree);
};
postMessage('ready');
