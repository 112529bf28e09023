#!/usr/bin/env python3
"""The chat page in Chromium without a window, served by the real program with the small default model.

What a model of 135 million parameters does not say by itself (thinking, tables, formulas, hostile text) comes in by importing a chat, or as
events given to the page's own code.  HADAL_TEST_SHOTS=DIR keeps pictures; HADAL_TEST_AXE=FILE runs axe-core's script as well.
"""
import gzip
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import cdp
import served
import thinker  # served says where it is, and counted
from counted import check, finish
from served import HADAL, MODEL

SHOTS = os.environ.get('HADAL_TEST_SHOTS')


class Server(served.Server):
    def __init__(self, folder, *options, **model):
        super().__init__(folder, '--max-tokens', '600', *options, **model)

    def start(self):
        super().start()
        if not self.started:
            sys.exit('serve: no address:\n' + self.log())

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        r = urllib.request.Request(self.url + path, data, {'content-type': 'application/json'} if data else {}, method=method)
        with urllib.request.urlopen(r, timeout=30) as f:
            return json.loads(f.read())


def shot(page, name):
    if SHOTS:
        page.shot(os.path.join(SHOTS, name + '.png'))


RUNNING = 'document.querySelector(".message.assistant:last-of-type")?.getAttribute("aria-busy") === "true"'
FINISHED = 'document.querySelector(".message.assistant:last-of-type")?.getAttribute("aria-busy") === "false"'
LAST = '.message.assistant:last-of-type .body'
STORY = 'Write a very long story about a ship, with many chapters. Begin with chapter one.'


def ask(page, text, finish=True):
    n = page.eval('document.querySelectorAll(".message").length')
    page.eval('document.querySelector("#ask").focus()')
    page.type(text)
    page.key('Enter')
    ok = page.wait(f'document.querySelectorAll(".message").length >= {n} + 2')
    return ok and (not finish or page.wait(FINISHED, 60))


# ---- Parts ----

def first_load(s, page):
    page.go(s.url)
    page.wait('document.querySelector("#model").textContent')
    size = 0
    for url in set(page.requests):
        if '/api/' in url or not url.startswith('http'):
            continue
        r = urllib.request.Request(url, headers={'accept-encoding': 'gzip'})
        with urllib.request.urlopen(r) as f:
            data = f.read()
            size += len(data)
            if f.headers['content-encoding'] == 'gzip':
                gzip.decompress(data)
    check(10000 < size <= 150000, 'first load is at most 150 kB', f'{size} bytes')
    check(not any('katex' in u or 'highlight' in u for u in page.requests), 'nothing of KaTeX or highlight.js in it')
    check(page.eval('document.activeElement.id') == 'ask', 'the field has the focus')
    check(page.eval('document.querySelector("#send").disabled'), 'sending nothing is not possible')
    shot(page, 'page-empty')
    print(f'first load: {size} bytes', file=sys.stderr)


def assets(s):
    with urllib.request.urlopen(s.url) as f:
        tag, policy = f.headers['etag'], f.headers['content-security-policy']
        html = f.read().decode()
    check("default-src 'none'" in policy and "require-trusted-types-for 'script'" in policy and 'unsafe' not in policy, 'the policy is strict')
    check('<script>' not in html and 'onclick' not in html and 'style=' not in html, 'no script inside the page')
    try:
        urllib.request.urlopen(urllib.request.Request(s.url, headers={'if-none-match': tag}))
        check(False, 'a known tag is 304')
    except urllib.error.HTTPError as e:
        check(e.code == 304, 'a known tag is 304')
    for path in ('a/nothing.js', 'a/..%2fsw.js', 'api/ui/chats/0', 'api/ui/chats/999', 'api/ui/answers/999'):
        try:
            urllib.request.urlopen(s.url + path)
            check(False, f'{path} is not there')
        except urllib.error.HTTPError as e:
            check(e.code in (400, 404), f'{path} is not there', e.code)


def conversation(s, page):
    check(ask(page, 'What is the capital of France? Answer in one word.'), 'an answer arrives')
    check(len(page.text(LAST) or '') > 3, 'it has text')
    check('tokens/s' in page.text('.message.assistant .facts'), 'speed and tokens are told')
    check(page.eval('!document.querySelector("#gauge").hidden'), 'the context gauge shows')
    check(page.eval('/^#\\d+$/.test(location.hash)'), 'the chat has its address')
    check(page.wait('document.querySelector("#list .chat-link[aria-current]")?.innerText.includes("capital")'), 'it stands in the list')
    check('capital' in page.eval('document.title'), 'the window is named after it')
    check(ask(page, 'And of Italy?') and page.eval('document.querySelectorAll(".message").length') == 4, 'a second question keeps the first')
    check(page.eval('[...document.querySelectorAll("#live p")].some(p => p.textContent.length > 3)'), 'what was said was spoken by sentences')


def versions(s, page):
    page.click('.message.assistant:last-of-type .foot [aria-label="Answer again"]')
    check(page.wait('document.querySelector(".message.assistant:last-of-type .versions")?.innerText.includes("2/2")') and page.wait(FINISHED, 60), 'another answer')
    new = page.eval('document.querySelector(".message.assistant:last-of-type").dataset.id')
    page.click('.message.assistant:last-of-type .versions button:first-of-type')
    check(page.wait('document.querySelector(".message.assistant:last-of-type .versions")?.innerText.includes("1/2")'), 'back to the first')
    check(page.eval('document.querySelector(".message.assistant:last-of-type").dataset.id') != new, 'it is another message')
    page.eval('new Promise(r => setTimeout(r, 300))')
    page.reload()
    check(page.wait('document.querySelector(".message.assistant:last-of-type .versions")?.innerText.includes("1/2")'), 'the choice outlives a reload')
    # Editing the last question from the empty field: a branch.
    page.eval('document.querySelector("#ask").focus()')
    page.key('ArrowUp')
    check(page.wait('document.activeElement.classList.contains("edit")'), 'arrow up edits')
    page.eval('document.activeElement.select()')
    page.type('And of Spain?')
    page.key('Enter')
    check(page.wait('document.querySelector(".message.user:nth-last-of-type(2) .versions")?.innerText.includes("2/2")') and page.wait(FINISHED, 60), 'a branch')
    check(page.text('.message.user:nth-last-of-type(2) .body') == 'And of Spain?', 'with the new question')
    check(page.eval('document.querySelectorAll(".message").length') == 4, 'and the old answer is not in it')
    # Escape leaves editing without a change.
    page.eval('document.querySelector("#ask").focus()')
    page.key('ArrowUp')
    page.wait('document.activeElement.classList.contains("edit")')
    page.key('Escape')
    check(page.eval('!document.querySelector("textarea.edit")') and page.text('.message.user:nth-last-of-type(2) .body') == 'And of Spain?', 'Escape ends editing')


def stop_and_go_on(s, page):
    page.key('o', cdp.CTRL | cdp.SHIFT)
    check(page.wait('!document.querySelector(".message")'), 'Ctrl+Shift+O begins a chat')
    ask(page, STORY, finish=False)
    page.wait(f'{RUNNING} && document.querySelector("{LAST}").innerText.length > 40')
    began = time.monotonic()
    page.key('Escape')
    check(page.wait(FINISHED, 5), 'Escape stops', f'{time.monotonic() - began:.2f} s')
    text = page.text(LAST)
    check(len(text) > 40, 'what there was stays')
    check('Stopped' in page.text('.message.assistant .status'), 'and is called stopped')
    page.click('.message.assistant .foot .small')
    check(page.wait(RUNNING, 5), 'it goes on')
    check(page.wait(f'document.querySelector("{LAST}").innerText.length > {len(text) + 40}', 30), 'from where it stopped')
    page.click('#send')
    check(page.wait(FINISHED, 5), 'the button stops, too')
    start = ' '.join(text.split())[:40]
    check(' '.join(page.text(LAST).split()).startswith(start), 'the beginning is the same')


def away(s, page):
    """Reload in mid-answer; closing the page; the server killed."""
    page.key('o', cdp.CTRL | cdp.SHIFT)
    ask(page, STORY, finish=False)
    page.wait(f'document.querySelector("{LAST}")?.innerText.length > 30')
    before = ' '.join((page.text(LAST) or '').split())
    page.reload()
    check(page.wait(f'{RUNNING} && document.querySelector("{LAST}").innerText.length >= {len(before)}', 10), 'after a reload it is still running, with its text')
    check(' '.join((page.text(LAST) or '').split()).startswith(before[:30]), 'the same text')
    chat = page.eval('location.hash')
    length = len(page.text(LAST))
    page.call('Page.navigate', {'url': 'about:blank'})
    time.sleep(.7)
    page.go(s.url + chat)
    check(page.wait(f'document.querySelector("{LAST}")?.innerText.length > {length}', 10), 'it went on without the page')
    if not page.eval(RUNNING):  # ended early by itself: another
        ask(page, STORY, finish=False)
        page.wait(f'document.querySelector("{LAST}")?.innerText.length > 30')
    page.wait(f'document.querySelector("{LAST}")?.innerText.length > {length + 100} || {FINISHED}', 10)
    questions = page.eval('[...document.querySelectorAll(".message.user .body")].map(e => e.innerText)')
    time.sleep(1.2)  # a save is due each second
    running = page.eval(RUNNING)
    s.stop(signal.SIGKILL)
    check(not running or page.wait('document.querySelector(".status:not([hidden])")?.innerText.includes("Reconnecting")', 10), 'the page says that the server is gone')
    began = time.monotonic()
    s.start()
    up = time.monotonic() - began
    check(page.wait(f'{FINISHED}', 20), 'the page finds it again')
    if running:
        check(page.wait('[...document.querySelectorAll(".status")].some(e => e.innerText.includes("Interrupted"))'), 'the cut answer says so')
        check(len(page.text(LAST)) > 30, 'and kept its text')
    check(page.eval('[...document.querySelectorAll(".message.user .body")].map(e => e.innerText)') == questions, 'the questions are all there')
    print(f'up again after {up:.1f} s', file=sys.stderr)


RICH = r'''Some *emphasis*, **strong**, `code <b>`, a [link](https://example.org), a [bad one](javascript:alert(1)), <img src=x onerror="window.bad=1"> and <script>window.bad=1</script>.

| Name | Value |
|------|------:|
| $\pi$ | 3.14159 |
| e | 2.71828 |

Inline \(a^2 + b^2 = c^2\), and money: $5 and $6.

$$\int_0^\infty e^{-x^2}\,dx = \frac{\sqrt{\pi}}{2}$$

\[
\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}
\]

```python
def fib(n):
    """Return the n-th number."""
    return n if n < 2 else fib(n - 1) + fib(n - 2)  # <b>slow</b>
```

1. one
   - nested
2. two

> A quote

![picture](https://example.com/a.png)
'''
HOSTILE = (r'$\def\x{\x\x}\x$ $\href{javascript:alert(1)}{x}$ $\includegraphics{https://example.com/x}$ $\htmlClass{a}{b}$ '
           r'$\newcommand{\a}{\a\a}\a$ $\color{red;background:url(https://example.com/y)}x$ $' + r'\frac{' * 300 + '1' + '}{2}' * 300 + '$ $'
           + 'x^{' * 900 + '1' + '}' * 900 + '$\n\n' + '>' * 3000 + ' deep\n\n' + '[' * 3000 + '\n\n' + '*a ' * 2000 + '\n\n'
           + '<svg onload="window.bad=1"><a href="javascript:window.bad=1">x</a></svg>\n\n[x](data:text/html,x) [y](vbscript:x) &lt;b&gt; &#x3c;i&#x3e;')


def imported(s, text, thinking='', title='Imported', info=None):
    s.call('POST', 'api/ui/import', {'format': 'hadal-chats', 'version': 1, 'chats': [{
        'title': title, 'system': '', 'pinned': False, 'head': 2, 'messages': [
            {'id': 1, 'parent': None, 'role': 'user', 'text': 'Show me'},
            {'id': 2, 'parent': 1, 'role': 'assistant', 'text': text, 'thinking': thinking, 'state': 'done', 'info': info or {}}]}]})
    return s.call('GET', 'api/ui/chats?offset=0')[0]['id']


def rich_text(s, page):
    chat = imported(s, RICH, 'First I **think**.\n\nThen I know.', 'Rich text', {'think_ms': 12000, 'gen_tok': 90, 'gen_ms': 9000, 'prompt_tok': 30, 'cached_tok': 10, 'thinking_tok': 8})
    page.go(s.url + '#' + str(chat))
    check(page.wait('document.querySelector("details.thinking")?.open === false'), 'thinking is folded')
    check(page.text('.thinking summary').startswith('Thought for 12 s'), 'and says how long it took')
    check(page.wait('document.querySelectorAll(".body .katex math").length === 4', 10), 'formulas are set', page.eval('document.querySelectorAll(".body .katex").length'))
    check(page.eval('[...document.querySelectorAll(".katex-html span")].some(e => e.style.height)'), 'with styles of their own')
    check(page.wait('document.querySelector(".code .hljs-keyword")?.textContent === "def"', 10), 'code is coloured')
    check(page.eval('document.querySelector(".code code").textContent').count('\n') == 2, 'and is whole')
    check(page.eval('document.querySelectorAll(".body table td").length') == 4, 'a table')
    check('$5 and $6' in page.text('.body:not(.user .body)') or '$5 and $6' in page.text('.message.assistant .body'), 'money is not a formula')
    check(page.eval('(e => e.target === "_blank" && e.rel.includes("noopener"))(document.querySelector(".body a"))'), 'a link opens apart')
    check(page.eval('!document.querySelector(".body img, .body script") && !window.bad') and '<img src=x' in page.text('.message.assistant .body'), 'HTML is text')
    check(page.eval('[...document.querySelectorAll(".body a")].every(a => /^https?:/.test(a.href))'), 'no link runs anything')
    page.click('.thinking summary')
    check(page.wait('document.querySelector("details.thinking").open'), 'thinking opens by hand')
    shot(page, 'page-rich')
    page.media(dark=True)
    shot(page, 'page-dark')
    check(page.eval('getComputedStyle(document.body).backgroundColor') == 'rgb(20, 22, 27)', 'dark')
    contrast(page, 'dark')
    page.media(dark=False)
    contrast(page, 'light')


def growing_text(s, page):
    """A text that grows piece by piece ends as the same elements as the whole of it, and what is done keeps its elements."""
    page.go(s.url)
    r = page.eval('''(async text => {
        const src = performance.getEntriesByType('resource').map(e => e.name).find(n => /markdown-/.test(n));
        const { Markdown } = await import(src), out = [], log = document.querySelector('#log');
        const shown = e => { const c = e.cloneNode(true); c.querySelectorAll('.katex').forEach(k => k.remove()); return c.innerHTML.replace(/ class="hljs[^"]*"/g, ''); };
        for (const step of [1, 7, 50]) {
            const a = document.createElement('div'), b = document.createElement('div'); log.append(a, b);
            const grown = new Markdown(a); let first = null, kept = true;
            for (let i = step; i < text.length; i += step) { grown.set(text.slice(0, i), true); if (i > 400) { first ??= a.firstElementChild; kept &&= a.firstElementChild === first; } }
            grown.set(text, false); new Markdown(b).set(text, false);
            await new Promise(r => setTimeout(r, 1500));
            out.push(shown(a) === shown(b), kept, a.querySelectorAll('.katex math').length, a.querySelectorAll('.hljs-keyword').length);
            a.remove(); b.remove();
        }
        const big = document.createElement('div'), m = new Markdown(big), t0 = performance.now(); let all = '';
        for (let i = 0; i < 600; i++) m.set(all += 'Some words of *paragraph* number ' + i + ' that are a line long.\\n\\n', true);
        out.push(big.childElementCount, performance.now() - t0);
        return out; })(%s)''' % json.dumps(RICH))
    check(all(r[i] and r[i + 1] and r[i + 2] == 4 and r[i + 3] > 1 for i in (0, 4, 8)), 'grown by pieces it is the same', r)
    check(r[12] == 600, 'a long text keeps all its paragraphs', r[12])
    print(f'600 paragraphs in 600 steps: {r[13]:.0f} ms', file=sys.stderr)


def hostile_text(s, page):
    chat = imported(s, HOSTILE, HOSTILE, 'Hostile')
    began = time.monotonic()
    page.go(s.url + '#' + str(chat))
    check(page.wait('document.querySelector(".message.assistant .body")?.innerText.length > 100', 15), 'hostile text is shown')
    page.eval('new Promise(r => setTimeout(r, 1500))')
    check(page.eval('1 + 1') == 2, 'the page answers', f'{time.monotonic() - began:.1f} s')
    check(page.eval('!window.bad'), 'nothing of it ran')
    check(page.eval('''![...document.querySelectorAll(".message *")].some(e => [...e.attributes].some(a =>
        /^on/.test(a.name) || (["href", "src"].includes(a.name) && !/^https?:/.test(a.value)) || /url\\(/.test(a.value)))'''), 'no dangerous link or attribute')


def live_thinking(s, page):
    """Events given to a message of the page's own: the model here does not think."""
    page.go(s.url)
    r = page.eval('''(async () => {
        const src = performance.getEntriesByType('resource').map(e => e.name).find(n => /message-/.test(n));
        const { MessageView } = await import(src);
        const m = { id: 1, role: 'assistant', text: '', thinking: '', state: 'running', info: {} }, v = new MessageView(m, {}), out = [];
        const frame = () => new Promise(r => requestAnimationFrame(() => setTimeout(r, 0)));
        document.querySelector('#log').append(v.el);
        v.event({ t: 'queue', position: 3 }); out.push(v.status.innerText);
        v.event({ t: 'prefill', done: 1024, total: 4096 }); out.push(v.status.innerText);
        v.event({ t: 'think', d: 'Let me see. ' }); await frame(); out.push(v.details.open, v.summary.innerText, v.el.getAttribute('aria-busy'));
        v.event({ t: 'text', d: 'Here ' }); await frame(); out.push(v.details.open, v.body.innerText.trim());
        v.event({ t: 'text', d: 'it **is**' }); await frame(); const first = v.body.firstChild; v.event({ t: 'text', d: '.\\n\\nNext\\n\\nAnd\\n\\nmore' }); await frame();
        out.push(v.body.querySelectorAll('p').length);
        v.event({ t: 'lost' }); out.push(v.status.innerText);
        v.event({ t: 'done', message: { id: 1, state: 'done', info: { think_ms: 61000, thinking_tok: 4 } } }); out.push(v.summary.innerText, v.thought.textContent, v.el.getAttribute('aria-busy'));
        v.el.remove();
        return out; })()''')
    want = ['Waiting: 3 requests are before yours', 'Reading: 1,024 of 4,096 tokens', True, 'Thinking…', 'true', False, 'Here', 4, 'Connection lost. Reconnecting…']
    check(r[:9] == want, 'thinking opens while it runs and folds after', r)
    check(r[9].startswith('Thought for 1 min 1 s') and r[10].strip() == 'Let me see.' and r[11] == 'false', 'and tells its time', r[9:])


def really_thinking(browser, folder):
    """A model that thinks: its thought is folded, told apart from the answer and kept; the next turn was computed ahead."""
    os.makedirs(f'{folder}/thinks')
    thinker.write(f'{folder}/thinks/thinker.gguf')
    s = Server(f'{folder}/thinks', model=f'{folder}/thinks/thinker.gguf')
    page = browser.page()
    try:
        page.go(s.url)
        for reloaded in (False, True):
            if reloaded:
                page.reload()
                page.wait(FINISHED, 20)
            else:
                check(ask(page, 'Tell me ' + 'of one thing and the next thing ' * 6), 'an answer with a thought arrives')
            check(page.wait(f'document.querySelector("{LAST}")?.innerText.trim() === {json.dumps(thinker.ANSWER.strip())}'), 'it says what it says', page.text(LAST))
            check(page.eval('document.querySelector("details.thinking")?.open === false'), 'the thought is folded')
            check((page.text('.thinking summary') or '').startswith('Thought for'), 'it says how long it thought', page.text('.thinking summary'))
            check(page.eval('document.querySelector("details.thinking").textContent').find(thinker.THOUGHT) >= 0, 'and what')
        time.sleep(1)
        check(ask(page, 'And then?'), 'a second question')
        last = s.call('GET', 'api/ui/chats/' + page.eval('location.hash.slice(1)'))['messages'][-1]
        check(last['info']['cached_tok'] > last['info']['prompt_tok'] - 84, 'its beginning was computed ahead', last['info'])
        check(not page.problems, 'no problems', page.problems[:5])
    finally:
        page.close()
        s.stop()


def list_of_chats(s, page):
    page.go(s.url)
    page.key('k', cdp.CTRL)
    check(page.eval('document.activeElement.id') == 'search', 'Ctrl+K goes to the search')
    page.type('capital fra')
    check(page.wait('document.querySelector(".found mark")?.textContent.toLowerCase().includes("capital")'), 'it finds')
    page.key('ArrowDown')
    page.key('Enter')
    check(page.wait('document.querySelector(".message.user .body")?.innerText.includes("capital")'), 'and opens')
    page.eval('document.querySelector("#search").value = ""; document.querySelector("#search").dispatchEvent(new Event("input"))')
    row = '#list li:has([aria-current])'
    check(page.wait(f'document.querySelector("{row} .chat-more")'), 'without words the list is back')
    page.click(f'{row} .chat-more')
    check(page.wait('document.activeElement.getAttribute("role") === "menuitem"'), 'its menu has the focus')
    page.key('Enter')
    check(page.wait('document.querySelector("dialog[open] input")'), 'a name is asked for')
    page.eval('document.querySelector("dialog input").select()')
    page.type('Capitals <b>of</b> Europe')
    page.key('Enter')
    check(page.wait(f'document.querySelector("{row}")?.innerText.includes("<b>of</b>")') and page.text('#title') == 'Capitals <b>of</b> Europe', 'renamed')
    page.click(f'{row} .chat-more')
    page.key('ArrowDown')
    page.key('Enter')
    check(page.wait('document.querySelector("#list h2")?.innerText === "Pinned"'), 'pinned')
    n = page.eval('document.querySelectorAll("#list li").length')
    page.click('#list ul:last-of-type li:last-of-type .chat-more')
    page.key('ArrowUp')
    page.key('Enter')
    check(page.wait('document.querySelector("dialog[open] .danger")'), 'deleting asks')
    page.key('Escape')
    page.wait('!document.querySelector("dialog[open]")')
    check(page.eval('document.querySelectorAll("#list li").length') == n, 'and can be left')
    page.click('#list ul:last-of-type li:last-of-type .chat-more')
    page.key('ArrowUp')
    page.key('Enter')
    page.wait('document.querySelector("dialog[open] .danger")')
    page.click('dialog[open] .danger')
    check(page.wait(f'document.querySelectorAll("#list li").length === {n - 1}'), 'deleted')
    shot(page, 'page-list')


def settings(s, page):
    page.click('#new')
    page.click('#settings')
    page.wait('document.querySelector("dialog.settings[open]")')
    check(page.eval('document.querySelector("#set-temperature").placeholder !== ""'), 'defaults are shown')
    shot(page, 'page-settings')
    page.eval('document.querySelector("#set-system").focus()')
    page.type('You are a pirate.')
    page.eval('document.querySelector("#set-max_tokens").focus()')
    page.type('5')
    page.click('dialog .main-button')
    check(page.wait('!document.querySelector("dialog.settings")'), 'saved')
    check(ask(page, 'Tell me a long story about the sea.') and page.wait('document.querySelector(".message.assistant .status")?.innerText.includes("limit")'), 'the cap on tokens holds')
    chat = page.eval('location.hash.slice(1)')
    c = s.call('GET', 'api/ui/chats/' + chat)
    check(c['system'] == 'You are a pirate.' and c['settings']['max_tokens'] == 5, 'settings are the chat\'s', c['settings'])
    for bad in ({'settings': {'temperature': 99}}, {'settings': {'top_k': 1.5}}, {'title': ''}, {'head': 'x'}, []):
        try:
            s.call('POST', 'api/ui/chats/' + chat, bad)
            check(False, f'{bad} is refused')
        except urllib.error.HTTPError as e:
            check(e.code in (400, 422), f'{bad} is refused', e.code)
    page.click('#settings')
    page.wait('document.querySelector("dialog.settings[open]")')
    page.eval('(e => { e.value = "fr"; e.dispatchEvent(new Event("change")); })(document.querySelector("#set-language"))')
    check(page.wait('document.querySelector("#new").innerText === "Nouvelle discussion"') and page.eval('document.documentElement.lang') == 'fr', 'French')
    page.eval('localStorage.removeItem("lang")')


def languages(s, browser):
    page = browser.page()
    page.go(s.url)
    r = page.eval('''Promise.all(performance.getEntriesByType('resource').map(e => e.name).filter(n => /lang-/.test(n)).map(n => import(n))).then(all => all.map(m =>
        Object.entries(m.default).map(([k, v]) => k + ' ' + (typeof v === 'string' ? v : v.other).match(/\\{\\w+\\}/g)?.sort())))''')
    check(len(r) == 3 and len(r[0]) > 90 and set(r[0]) == set(r[1]) == set(r[2]), 'every language has every word, with the same values in it',
          (set(r[0]) ^ set(r[1])) | (set(r[0]) ^ set(r[2])))
    page.close()
    for language, code, word in (('fr-FR,fr', 'fr', 'Nouvelle discussion'), ('zh-CN,zh', 'zh-Hans', '新对话'), ('de-DE', 'en', 'New chat')):
        page = browser.page(language=language)
        page.go(s.url)
        check(page.text('#new') == word and page.eval('document.documentElement.lang') == code, f'{language}: the browser\'s language')
        if code == 'fr':
            check(ask(page, 'Dis bonjour.') and 'jetons' in page.text('.message.assistant .facts'), 'fr: an answer')
            shot(page, 'page-french')
        check(not page.problems, f'{language}: no problems', page.problems)
        page.close()


def phone(s, browser):
    page = browser.page(width=360, height=640)
    page.go(s.url)
    wide = 'document.documentElement.scrollWidth <= 360 && document.querySelector("#log").scrollWidth <= 360'
    check(page.eval(wide), '360 px: nothing sticks out')
    check(page.eval('document.querySelector("#side").inert && getComputedStyle(document.querySelector("#side")).visibility === "hidden"'), '360 px: the list is away')
    page.click('#open-side')
    check(page.wait('getComputedStyle(document.querySelector("#side")).visibility === "visible"'), '360 px: it opens')
    shot(page, 'page-phone-list')
    axe(page, 'phone')
    page.wait('document.querySelectorAll("#list a").length > 2')
    page.click('#list li:has(a[title="Rich text"]) a')
    check(page.wait('document.querySelector("#side").inert && document.querySelector(".body .katex")'), '360 px: and closes when a chat is opened')
    check(page.eval(wide), '360 px: tables and code scroll inside')
    check(page.eval('''[...document.querySelectorAll("button")].filter(b => b.offsetParent).every(b => {
        const r = b.getBoundingClientRect(); return r.width >= 24 && r.height >= 24; })'''), '360 px: things to touch are large enough')
    page.eval('document.querySelector("#log").scrollTop = 0')
    shot(page, 'page-phone')
    page.size(550, 400)  # 1100 x 800 at 200 %
    check(page.eval('document.documentElement.scrollWidth <= 550'), '200 %: nothing sticks out')
    check(not page.problems, 'phone: no problems', page.problems)
    page.close()


def keyboard(s, browser):
    page = browser.page()
    page.go(s.url)
    page.eval('document.activeElement.blur()')
    seen = []
    for _ in range(40):
        page.key('Tab')
        seen.append(page.eval('document.activeElement.id || document.activeElement.className || document.activeElement.tagName'))
    check(seen[1] == 'skip' and all(k in seen for k in ('close-side', 'new', 'search', 'log', 'ask')), 'Tab reaches everything, the way to the field first', seen)
    page.eval('document.querySelector("#ask").focus()')
    page.type('one')
    page.key('Enter', cdp.SHIFT)
    page.type('two')
    check(page.eval('document.querySelector("#ask").value') == 'one\ntwo', 'Shift+Enter is a new line')
    page.eval('document.querySelector("#ask").value = ""')
    page.call('Input.imeSetComposition', {'text': '你', 'selectionStart': 1, 'selectionEnd': 1})
    page.call('Input.dispatchKeyEvent', {'type': 'rawKeyDown', 'key': 'Enter', 'windowsVirtualKeyCode': 229})
    time.sleep(.3)
    check(page.eval('!document.querySelector(".message")'), 'Enter that chooses a character does not send')
    page.type('你好')
    check(page.eval('document.querySelector("#ask").value.length') > 0 and page.reload()
          and page.wait('document.querySelector("#ask")?.value.includes("你好")'), 'the draft outlives a reload')
    page.eval('document.querySelector("#ask").focus()')
    page.key('Enter')
    check(page.wait('document.querySelector(".message.user")') and page.wait(FINISHED, 60), 'Enter sends')
    check(not page.problems, 'keyboard: no problems', page.problems)
    page.close()


CONTRAST = '''(() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const lum = ([r, g, b]) => { const f = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; return .2126 * f(r) + .7152 * f(g) + .0722 * f(b); };
  const ground = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] === 1) return c; } return [255, 255, 255]; };
  const bad = [];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) || !e.offsetParent || e.closest(':disabled, .hidden-label, .katex-mathml')) continue;
    const s = getComputedStyle(e); if (s.visibility !== 'visible') continue;
    let o = 1; for (let p = e; p; p = p.parentElement) o *= Number(getComputedStyle(p).opacity);
    const g = ground(e), t = parse(s.color).slice(0, 3).map((v, i) => v * o + g[i] * (1 - o)), a = lum(t), b = lum(g);
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) bad.push([e.className || e.tagName, e.textContent.slice(0, 20), ratio.toFixed(2)]);
  }
  return bad.slice(0, 8); })()'''


def contrast(page, theme):
    bad = page.eval(CONTRAST)
    check(not bad, f'{theme}: text stands out 4.5:1', bad)


NAMES = '''(() => {
  const bad = [];
  const named = e => (e.getAttribute('aria-label') || e.innerText || e.labels?.[0]?.innerText || '').trim();
  for (const e of document.querySelectorAll('button, a[href], input, textarea, select, summary, [role=menuitem]'))
    if ((e.offsetParent || e.closest('dialog[open]')) && !named(e)) bad.push(e.outerHTML.slice(0, 80));
  const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
  if (new Set(ids).size !== ids.length) bad.push('an id twice');
  for (const e of document.querySelectorAll('[aria-labelledby], [aria-describedby], [aria-controls]'))
    for (const a of ['aria-labelledby', 'aria-describedby', 'aria-controls']) for (const id of (e.getAttribute(a) || '').split(' ')) if (id && !document.getElementById(id)) bad.push(`${a}=${id}`);
  if (document.querySelectorAll('main').length !== 1 || document.querySelectorAll('nav').length !== 1 || document.querySelectorAll('h1').length !== 1) bad.push('landmarks');
  if (!document.title || !document.documentElement.lang) bad.push('title or language');
  for (const e of document.querySelectorAll('[tabindex]')) if (e.tabIndex > 0) bad.push('a tabindex above 0');
  for (const e of document.querySelectorAll('[aria-hidden=true]')) if (e.querySelector('button, a[href], input') || e.matches('button')) bad.push('hidden from readers, but can have the focus');
  return bad; })()'''


def axe(page, where):
    """axe-core's rules of WCAG 2.1 A and AA, where its script is at hand."""
    if not os.environ.get('HADAL_TEST_AXE'):
        return
    page.eval(open(os.environ['HADAL_TEST_AXE'], encoding='utf8').read())
    r = page.eval('''axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}).then(r => [r.passes.length,
        r.violations.map(v => [v.id, v.nodes.map(n => n.html.slice(0, 120))])])''')
    check(r[0] > 10 and not r[1], f'{where}: axe-core finds nothing', json.dumps(r))


def for_readers(s, page):
    chat = next(c['id'] for c in s.call('GET', 'api/ui/chats?offset=0') if c['title'] == 'Rich text')
    page.go(s.url + f'#{chat}')
    page.wait('document.querySelector(".body .katex")')
    bad = page.eval(NAMES)
    check(not bad, 'everything that can be used has a name', bad)
    roles = {n['role']['value'] for n in page.call('Accessibility.getFullAXTree')['nodes'] if not n.get('ignored')}
    check({'main', 'navigation', 'search', 'article', 'heading', 'MathMLMath', 'table'} <= roles, 'a reader sees landmarks, articles and formulas', roles)
    page.click('#settings')
    page.wait('document.querySelector("dialog.settings[open]")')
    bad = page.eval(NAMES)
    check(not bad, 'the settings, too', bad)
    axe(page, 'settings')
    contrast(page, 'settings')
    page.key('Escape')
    axe(page, 'light')
    page.media(dark=True)
    axe(page, 'dark')
    page.media()


def carrying(s):
    everything = s.call('GET', 'api/ui/export?format=json')
    n = len(everything['chats'])
    check(everything['format'] == 'hadal-chats' and n > 3, 'an export of all')
    check(s.call('POST', 'api/ui/import', everything)['chats'] == n and len(s.call('GET', 'api/ui/export?format=json')['chats']) == 2 * n, 'comes in again')
    chat = next(c['id'] for c in everything['chats'] if c['title'] == 'Rich text')
    with urllib.request.urlopen(f'{s.url}api/ui/export?format=md&chat={chat}') as f:
        md = f.read().decode()
        check(f.headers['content-type'].startswith('text/markdown') and '# Rich text' in md and '> First I **think**.' in md and r'\int_0^\infty' in md, 'Markdown')
    copy = f'{s.folder}/copy.db'
    r = subprocess.run([HADAL, 'backup', f'{s.folder}/chats.db', copy], capture_output=True, text=True)
    check(r.returncode == 0 and os.path.getsize(copy) > 10000, 'a backup while it runs', r.stderr)


def with_key(browser, folder):
    """A server with an API key asks the page for it, once."""
    os.mkdir(f'{folder}/key')
    with open(f'{folder}/key/keys', 'w') as f:
        f.write('a-key-of-the-test-0123456789\n')
    s = Server(f'{folder}/key', '--api-key-file', f'{folder}/key/keys')
    page = browser.page()
    try:
        page.go(s.url)
        check(page.wait('document.querySelector("dialog[open] input")'), 'a key is asked for')
        page.type('wrong')
        page.key('Enter')
        page.eval('new Promise(r => setTimeout(r, 500))')
        check(page.wait('document.querySelector("dialog[open] input")?.value === ""'), 'a wrong one is asked for again')
        page.type('a-key-of-the-test-0123456789')
        page.key('Enter')
        check(page.wait('!document.querySelector("dialog[open]") && document.querySelector("#model").textContent') and ask(page, 'Hello'), 'the right one lets in')
        page.reload()
        check(page.wait('document.querySelector("#model").textContent && document.querySelector(".message") && !document.querySelector("dialog[open]")'), 'for good')
        check(page.eval('!document.cookie && !JSON.stringify(localStorage).includes("a-key")'), 'and no script can read it')
    finally:
        page.close()
        s.stop()


def offline(s, page):
    """The service worker opens the page without the server."""
    page.go(s.url)
    ready = page.eval('''navigator.serviceWorker.ready.then(async () => { for (let i = 0; i < 100; i++) {
        if (await caches.match("/")) return true; await new Promise(r => setTimeout(r, 50)); } return false; })''')
    check(ready, 'the service worker is there')
    s.stop()
    page.problems.clear()
    page.reload()
    check(page.wait('document.querySelector(".toast.shown")?.innerText.includes("does not answer")', 10), 'the page opens without the server, and says so')
    s.start()
    check(page.wait('!document.querySelector(".toast.shown") && document.querySelectorAll("#list a").length > 2', 10), 'and finds it')
    page.problems.clear()


def main():
    if not cdp.find_chromium() or not MODEL:
        print('test_page_full: needs chromium (apt-get install chromium) and the default model', file=sys.stderr)
        check(False, 'what is tested')
        finish()
    with tempfile.TemporaryDirectory() as folder:
        s, browser = Server(folder), None
        try:
            browser = cdp.Browser()
            page = browser.page()
            first_load(s, page)
            assets(s)
            for part in (conversation, versions, stop_and_go_on, rich_text, growing_text, hostile_text, live_thinking, list_of_chats, settings, for_readers):
                part(s, page)
                check(not page.problems, f'{part.__name__}: no problems', page.problems[:5])
                page.problems.clear()
            languages(s, browser)
            phone(s, browser)
            keyboard(s, browser)
            carrying(s)
            check(all(u.startswith((s.url, 'data:', 'about:', 'blob:')) for u in page.requests), 'no request to anybody else', [u for u in page.requests if not u.startswith(s.url)][:3])
            away(s, page)
            with_key(browser, folder)
            really_thinking(browser, folder)
            offline(s, page)
        finally:
            if browser:
                browser.close()
            if s.process.poll() is None:
                s.stop()
    finish()


if __name__ == '__main__':
    main()
