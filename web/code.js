// Highlighting: highlight.js runs in a worker and is loaded with the first code in a language it knows.  A growing block is coloured up to
// where the worker has got and plain after that; its text never changes place.
import { h } from './dom.js';
import { Helper } from './worker.js';

const MAX_CODE = 50000;
const known = { sh: 'bash', shell: 'bash', zsh: 'bash', console: 'shell', c: 'cpp', 'c++': 'cpp', h: 'cpp', hpp: 'cpp', cc: 'cpp', py: 'python', python3: 'python', js: 'javascript',
  mjs: 'javascript', jsx: 'javascript', ts: 'typescript', tsx: 'typescript', html: 'xml', svg: 'xml', rs: 'rust', golang: 'go', yml: 'yaml', toml: 'ini', md: 'markdown', make: 'makefile',
  rb: 'ruby', patch: 'diff' };
for (const l of ['bash', 'cpp', 'css', 'diff', 'go', 'ini', 'java', 'javascript', 'json', 'lua', 'makefile', 'markdown', 'php', 'python', 'r', 'ruby', 'rust', 'sql', 'typescript', 'xml', 'yaml']) known[l] = l;

let helper;
const nodes = (runs) => runs.map((r) => (typeof r === 'string' ? r : h('span', { class: r[0] }, nodes(r[1]))));

// el: the <code>; open: more is to come.
export function highlight(el, text, name, open) {
  const lang = Object.hasOwn(known, name.toLowerCase()) ? known[name.toLowerCase()] : null;
  el.want = text;
  if (!lang || text.length > MAX_CODE) {
    el.textContent = text;
    return;
  }
  // What is coloured stays while the text only grows.
  if (el.coloured !== undefined && text.startsWith(el.coloured)) el.lastChild.textContent = text.slice(el.coloured.length);
  else {
    el.textContent = text;
    el.coloured = undefined;
  }
  if (el.busy || el.coloured === text) return;
  el.busy = true;
  helper ??= new Helper(new URL('./code-worker.js', import.meta.url).href, 1000);
  setTimeout(async () => {
    const source = el.want;
    const runs = await helper.run({ lang, text: source });
    el.busy = false;
    if (!runs || !el.want.startsWith(source)) return;
    el.replaceChildren(...nodes(runs), el.want.slice(source.length)); // ends with a text node, be it empty
    el.coloured = source;
    if (el.want !== source) highlight(el, el.want, name, open);
  }, open ? 250 : 0);
}
