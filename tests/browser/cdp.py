"""A browser under our hands: Chromium without a window, spoken to in its DevTools protocol over a pair of pipes.

Nothing but Python and Debian's chromium is needed.  One Browser is one process with a profile of its own in a folder that goes with it; a
Page is one tab.  Keys and clicks arrive as from a person's devices, not as calls of the page's own functions.
"""
import base64
import collections
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time

KEYS = {'Enter': (13, '\r'), 'Escape': (27, ''), 'Tab': (9, ''), 'ArrowUp': (38, ''), 'ArrowDown': (40, ''), 'Backspace': (8, '')}
ALT, CTRL, SHIFT = 1, 2, 8


def find_chromium():
    return shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')


class Browser:
    def __init__(self):
        self.home = tempfile.mkdtemp(prefix='hadal-browser-')
        down_r, down_w = os.pipe()
        up_r, up_w = os.pipe()
        command = [find_chromium(), '--headless=new', '--remote-debugging-pipe', '--no-sandbox', '--no-first-run', '--disable-gpu',
                   '--disable-background-networking', '--disable-component-update', '--disable-sync', '--ignore-certificate-errors',
                   f'--user-data-dir={self.home}', 'about:blank']
        self.process = subprocess.Popen(['sh', '-c', f'exec "$@" 3<&{down_r} 4>&{up_w}', 'sh', *command], pass_fds=(down_r, up_w),
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        env={**os.environ, 'HOME': self.home})
        os.close(down_r)
        os.close(up_w)
        self.down, self.up = os.fdopen(down_w, 'wb'), os.fdopen(up_r, 'rb')
        self.n, self.replies, self.lock = 0, {}, threading.Condition()
        self.pages = {}
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        rest = b''
        while True:
            got = self.up.read1(1 << 16)
            if not got:
                break
            *whole, rest = (rest + got).split(b'\0')
            for m in map(json.loads, whole):
                with self.lock:
                    if 'id' in m:
                        self.replies[m['id']] = m
                    elif m.get('sessionId') in self.pages:
                        self.pages[m['sessionId']].on_event(m)
                    self.lock.notify_all()

    def call(self, method, params=None, session=None, timeout=30):
        with self.lock:
            self.n += 1
            n = self.n
            m = {'id': n, 'method': method, 'params': params or {}}
            if session:
                m['sessionId'] = session
            self.down.write(json.dumps(m).encode() + b'\0')
            self.down.flush()
            if not self.lock.wait_for(lambda: n in self.replies, timeout):
                raise TimeoutError(method)
            reply = self.replies.pop(n)
        if 'error' in reply:
            raise RuntimeError(f'{method}: {reply["error"]["message"]}')
        return reply['result']

    def page(self, width=1100, height=800, language='en-US', dark=False):
        context = self.call('Target.createBrowserContext')['browserContextId'] # cookies and storage of its own
        target = self.call('Target.createTarget', {'url': 'about:blank', 'browserContextId': context})['targetId']
        session = self.call('Target.attachToTarget', {'targetId': target, 'flatten': True})['sessionId']
        return Page(self, session, context, width, height, language, dark)

    def close(self):
        try:
            self.call('Browser.close', timeout=5)
            self.process.wait(10)
        except Exception:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.home, ignore_errors=True)


class Page:
    def __init__(self, browser, session, context, width, height, language, dark):
        self.browser, self.session, self.context = browser, session, context
        self.problems = []  # exceptions, console errors, refused by the content policy
        self.requests = collections.deque(maxlen=10000)
        browser.pages[session] = self
        for domain in ('Page', 'Runtime', 'Log', 'Network', 'Accessibility'):
            self.call(f'{domain}.enable')
        self.call('Emulation.setUserAgentOverride', {'userAgent': 'hadal-test', 'acceptLanguage': language})
        self.media(dark=dark)
        self.size(width, height)

    def call(self, method, params=None, timeout=30):
        return self.browser.call(method, params, self.session, timeout)

    def on_event(self, m):
        p = m.get('params', {})
        if m['method'] == 'Runtime.exceptionThrown':
            d = p['exceptionDetails']
            self.problems.append(d.get('exception', {}).get('description') or d['text'])
        elif m['method'] == 'Log.entryAdded' and p['entry']['level'] == 'error':
            self.problems.append(f"{p['entry']['text']} {p['entry'].get('url', '')}")
        elif m['method'] == 'Runtime.consoleAPICalled' and p['type'] == 'error':
            self.problems.append(' '.join(str(a.get('value', a.get('description', ''))) for a in p['args']))
        elif m['method'] == 'Network.requestWillBeSent':
            self.requests.append(p['request']['url'])

    def size(self, width, height):
        self.call('Emulation.setDeviceMetricsOverride', {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': width < 600})

    def media(self, dark=False, calm=True):
        self.call('Emulation.setEmulatedMedia', {'features': [
            {'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'},
            {'name': 'prefers-reduced-motion', 'value': 'reduce' if calm else 'no-preference'}]})

    READY = 'document.readyState === "complete" && document.querySelector("#send")?.childElementCount > 0'

    def go(self, url):
        self.call('Page.navigate', {'url': 'about:blank'})  # so that an address which differs behind the # alone is loaded, too
        self.call('Page.navigate', {'url': url})
        return self.wait(self.READY)

    def reload(self):
        self.eval('window.stale = true')
        self.call('Page.reload')
        return self.wait('!window.stale && ' + self.READY)

    def eval(self, js):
        r = self.call('Runtime.evaluate', {'expression': js, 'awaitPromise': True, 'returnByValue': True})
        if 'exceptionDetails' in r:
            raise RuntimeError(r['exceptionDetails'].get('exception', {}).get('description') or r['exceptionDetails']['text'])
        return r['result'].get('value')

    def wait(self, js, seconds=20):
        end = time.monotonic() + seconds
        while True:
            try:
                if self.eval(f'!!({js})'):
                    return True
            except RuntimeError:
                pass  # between two documents
            if time.monotonic() > end:
                return False
            time.sleep(.03)

    def key(self, key, modifiers=0):
        code, text = KEYS[key] if key in KEYS else (ord(key.upper()), '' if modifiers & (CTRL | ALT) else key)
        base = {'key': key, 'windowsVirtualKeyCode': code, 'modifiers': modifiers, 'code': key if key in KEYS else f'Key{key.upper()}'}
        self.call('Input.dispatchKeyEvent', {'type': 'keyDown', 'text': text, **base} if text else {'type': 'rawKeyDown', **base})
        self.call('Input.dispatchKeyEvent', {'type': 'keyUp', **base})

    def type(self, text):
        self.call('Input.insertText', {'text': text})

    def click(self, selector):
        box = self.eval('''(() => { const e = document.querySelector(%s); if (!e) return null; e.scrollIntoView({block: 'nearest'});
            const r = e.getBoundingClientRect(); return r.width ? [r.x + r.width / 2, r.y + r.height / 2] : null; })()''' % json.dumps(selector))
        if not box:
            raise RuntimeError(f'nothing to click: {selector}')
        for kind in ('mousePressed', 'mouseReleased'):
            self.call('Input.dispatchMouseEvent', {'type': kind, 'x': box[0], 'y': box[1], 'button': 'left', 'clickCount': 1})

    def text(self, selector):
        return self.eval('document.querySelector(%s)?.innerText ?? null' % json.dumps(selector))

    def shot(self, path):
        data = self.call('Page.captureScreenshot', {'format': 'png'})['data']
        with open(path, 'wb') as f:
            f.write(base64.b64decode(data))

    def close(self):
        self.browser.pages.pop(self.session, None)
        self.browser.call('Target.disposeBrowserContext', {'browserContextId': self.context})
