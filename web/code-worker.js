// highlight.js away from the page.  Version 9 gives markup of one kind only (<span class="...">, </span>, and escaped characters), which is
// taken apart here into nested runs [class, [...]]; anything else counts as a failure.
import './highlight.js';

const { hljs } = self;
hljs.configure({ hideUpgradeWarningAcceptNoSupportOrSecurityUpdates: true });
const plain = (s) => s.replace(/&(amp|lt|gt|quot|#x27);/g, (_, e) => ({ amp: '&', lt: '<', gt: '>', quot: '"', '#x27': "'" })[e]);

function runs(markup) {
  const stack = [[]];
  let at = 0;
  for (const m of markup.matchAll(/<span class="([\w -]+)">|<\/span>|<[^]/g)) {
    if (m.index > at) stack.at(-1).push(plain(markup.slice(at, m.index)));
    if (m[1]) {
      const run = [m[1], []];
      stack.at(-1).push(run);
      stack.push(run[1]);
    } else if (m[0] === '</span>' && stack.length > 1) {
      stack.pop();
    } else {
      return null;
    }
    at = m.index + m[0].length;
  }
  if (at < markup.length) stack.at(-1).push(plain(markup.slice(at)));
  return stack.length === 1 ? stack[0] : null;
}

self.onmessage = ({ data }) => {
  let result = null;
  try {
    result = runs(hljs.highlight(data.lang, data.text, true).value);
  } catch { /* plain text stays */ }
  postMessage(result);
};
postMessage('ready');
