// Making elements: the page never parses HTML.  Everything shown comes out of h() and textContent, so a model's answer can be any
// text at all; with `require-trusted-types-for 'script'` the browser enforces the same.

// h('button', { class: 'x', onclick: f, 'aria-label': 's', disabled: true }, child, 'text', [more])
export function h(tag, props, ...children) {
  const el = document.createElement(tag);
  for (const [k, v] of Object.entries(props || {})) {
    if (v === undefined || v === null || v === false) continue;
    if (k.startsWith('on')) el.addEventListener(k.slice(2), v);
    else if (k === 'class') el.className = v;
    else if (k === 'value') el.value = v;
    else el.setAttribute(k, v === true ? '' : String(v));
  }
  add(el, children);
  return el;
}

export function add(el, children) {
  for (const c of children.flat(Infinity)) if (c !== undefined && c !== null && c !== false) el.append(c);
  return el;
}

// Icons: strokes on a 24-unit square, drawn in the text's colour.
const paths = {
  menu: 'M4 7h16M4 12h16M4 17h16',
  plus: 'M12 5v14M5 12h14',
  send: 'M12 19V5M6 11l6-6 6 6',
  stop: 'M7 7h10v10H7z',
  copy: 'M9 9h10v11H9zM5 15V4h10',
  check: 'M5 12.5l4.5 4.5L19 7.5',
  redo: 'M19 12a7 7 0 1 1-2.2-5.1M19 4v4h-4',
  edit: 'M4 20l1-4L16.500 4.500l3 3L8 19zM14.500 6.500l3 3',
  trash: 'M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13',
  pin: 'M9 4h6l-1 6 3 3H7l3-3zM12 13v7',
  more: 'M5 12h.01M12 12h.01M19 12h.01',
  left: 'M14.500 6l-6 6 6 6',
  right: 'M9.500 6l6 6-6 6',
  gear: 'M4 7h10M18 7h2M4 17h2M10 17h10M16 5v4M8 15v4',
  go: 'M7 5l11 7-11 7z',
  close: 'M6 6l12 12M18 6L6 18',
  bulb: 'M9 18h6M10 21h4M12 3a6 6 0 0 0-3.500 10.900V15h7v-1.100A6 6 0 0 0 12 3z',
  down: 'M12 5v14M6 13l6 6 6-6',
  search: 'M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14M16 16l4.500 4.500',
};
export function icon(name) {
  const ns = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(ns, 'svg'), path = document.createElementNS(ns, 'path');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  path.setAttribute('d', paths[name]);
  svg.append(path);
  return svg;
}

// A button that shows an icon alone: its label is for screen readers and the tooltip.
export function iconButton(name, label, onclick, props) {
  return h('button', { type: 'button', class: 'icon-button', 'aria-label': label, title: label, onclick, ...props }, icon(name));
}

// Worker and service worker addresses pass through the page's one Trusted Types policy, which knows this site's own files only.
const policy = globalThis.trustedTypes?.createPolicy('hadal', {
  createScriptURL(url) {
    const u = new URL(url, location.href);
    if (u.origin !== location.origin || !/^\/(a\/[\w.-]+\.js|sw\.js)$/.test(u.pathname)) throw new TypeError('not a script of this page');
    return u.href;
  },
});
export const scriptURL = (url) => (policy ? policy.createScriptURL(url) : url);

export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch { // plain HTTP off loopback has no clipboard: the old way
    const area = h('textarea', { class: 'hidden-label', 'aria-hidden': 'true', tabindex: -1 });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    return done;
  }
}

// A copy button that says that it has.
export function copyButton(label, doneLabel, text) {
  const b = iconButton('copy', label, async () => {
    const ok = await copyText(text());
    b.replaceChildren(icon(ok ? 'check' : 'close'));
    if (ok) b.setAttribute('aria-label', doneLabel);
    setTimeout(() => {
      b.replaceChildren(icon('copy'));
      b.setAttribute('aria-label', label);
    }, 1500);
  });
  return b;
}

export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const a = h('a', { href: url, download: name });
  document.body.append(a);
  a.click();
  a.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
