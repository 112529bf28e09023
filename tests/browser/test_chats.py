#!/usr/bin/env python3
"""What the page is promised, over HTTP: an acknowledged question outlives kill -9; a disk that refuses is said, and loses nothing.

HADAL_TEST_FULL=1 kills 200 times instead of 6.
"""
import http.client
import json
import os
import random
import resource
import signal
import sys
import tempfile
import threading
import time

import served
from counted import check, finish  # served says where it is
from served import MODEL

KILLS = 200 if os.environ.get('HADAL_TEST_FULL') else 6


class Server(served.Server):
    def call(self, method, path, body=None):
        """(status, JSON); status 0 when the server is gone."""
        try:
            c = http.client.HTTPConnection('127.0.0.1', self.port, timeout=20)
            c.request(method, '/api/ui/' + path, None if body is None else json.dumps(body), {'content-type': 'application/json'} if body is not None else {})
            r = c.getresponse()
            return r.status, json.loads(r.read() or b'null')
        except (OSError, http.client.HTTPException, ValueError):
            return 0, None


def everything(s):
    """{question: its answer's state} of all chats."""
    _, all_of_it = s.call('GET', 'export?format=json')
    out = {}
    for chat in all_of_it['chats']:
        text = {m['id']: m['text'] for m in chat['messages']}
        for m in chat['messages']:
            out.setdefault(m['text'] if m['role'] == 'user' else text[m['parent']], m['state'] if m['role'] == 'assistant' else None)
            if m['role'] == 'assistant':
                out[text[m['parent']]] = m['state']
    return out


def killed(s):
    told, dice, slow = [], random.Random(5), 0
    for i in range(KILLS):
        stop = threading.Event()

        def ask(who):
            n = 0
            while not stop.is_set():
                text = f'{i}-{who}-{n}'
                status, r = s.call('POST', 'ask', {'text': text, 'settings': {'max_tokens': 8}})
                if status == 200 and r['answer'] > 0:
                    told.append(text)
                elif status == 0:
                    return
                n += 1
        threads = [threading.Thread(target=ask, args=(k,)) for k in range(3)]
        for t in threads:
            t.start()
        time.sleep(dice.uniform(.01, .25))
        s.stop(signal.SIGKILL)
        stop.set()
        for t in threads:
            t.join()
        began = time.monotonic()
        s.start()
        slow = max(slow, time.monotonic() - began)
        if not s.started:
            check(False, 'it starts again', s.log()[-300:])
            return
    have = everything(s)
    lost = [t for t in told if t not in have]
    check(len(told) >= KILLS and not lost, f'{KILLS} times kill -9: every acknowledged question is there', f'{len(told)} told, lost {lost[:5]}')
    time.sleep(.5)
    states = set(everything(s).values())
    check('running' not in states and states <= {'done', 'length', 'interrupted', 'failed'}, 'no answer is said to be running', states)
    print(f'{len(told)} questions acknowledged in {KILLS} lives; slowest start {slow:.2f} s', file=sys.stderr)


def full_disk(s):
    """No file may grow: as a full disk.  Reading works, writing says why, and all is well once there is room."""
    before = everything(s)
    size = max(os.path.getsize(f'{s.folder}/chats.db{x}') for x in ('', '-wal') if os.path.exists(f'{s.folder}/chats.db{x}'))
    old = resource.prlimit(s.process.pid, resource.RLIMIT_FSIZE, (size + 4096, resource.RLIM_INFINITY))
    status, r = 200, None
    kept = []
    for i in range(200):
        status, r = s.call('POST', 'ask', {'text': f'full {i} ' + 'x' * 20000, 'settings': {'max_tokens': 1}})
        if status != 200:
            break
        kept.append(f'full {i} ')
    check(status == 503 and 'store' in json.dumps(r), 'a full disk is 503, and says why', (status, r))
    check(s.call('GET', 'chats?offset=0')[0] == 200 and s.call('GET', 'search?q=full')[0] == 200, 'reading still works')
    resource.prlimit(s.process.pid, resource.RLIMIT_FSIZE, old)
    after = everything(s)
    check(set(before) <= set(after) and all(any(t.startswith(k) for t in after) for k in kept), 'nothing was lost')
    check(s.call('POST', 'ask', {'text': 'room', 'settings': {'max_tokens': 1}})[0] == 200, 'with room it works again')
    time.sleep(.5)
    s.stop(signal.SIGKILL)
    s.start()
    check(s.started and set(after) | {'room'} <= set(everything(s)), 'also after a crash')


def failing_sync(s):
    """A disk that does not keep what it took: a question is refused, not acknowledged; the text of a running answer waits in memory."""
    shim = os.path.join(os.environ.get('HADAL_BUILD', 'build'), 'tests/failsync.so')
    if not os.path.exists(shim):
        return  # not built with sanitizers, which want to be first themselves
    flag = f'{s.folder}/sync-fails'
    s.stop()
    s.start(LD_PRELOAD=os.path.abspath(shim), HADAL_FAILSYNC=flag)
    before = everything(s)
    status, r = s.call('POST', 'ask', {'text': 'Tell me a story.', 'settings': {'max_tokens': 60}})
    open(flag, 'w').close()
    refused, e = s.call('POST', 'ask', {'text': 'never kept'})
    check(refused == 503 and 'store' in json.dumps(e), 'a failing fsync is 503, and says why', (refused, e))
    check(s.call('GET', 'chats?offset=0')[0] == 200, 'reading still works')
    time.sleep(1.5)
    os.unlink(flag)
    for _ in range(60):
        state = s.call('GET', f'chats/{r["chat"]}')[1]['messages'][-1]['state']
        if state != 'running':
            break
        time.sleep(.1)
    check(state in ('done', 'length'), 'the answer is kept once the disk is well', state)
    after = everything(s)
    check(set(before) < set(after) and 'never kept' not in after, 'nothing was lost, nothing refused was kept')
    s.stop(signal.SIGKILL)
    s.start()
    check(s.started and everything(s) == after, 'also after a crash')


def wrong(s):
    """What is asked wrongly is refused, and leaves nothing behind."""
    n = len(everything(s))
    for method, path, body, want in (
            ('POST', 'ask', {}, 422), ('POST', 'ask', [], 400), ('POST', 'ask', {'text': ''}, 422), ('POST', 'ask', {'text': 'x', 'chat': 10 ** 9}, 404),
            ('POST', 'ask', {'text': 'x', 'parent': 'a'}, 422), ('POST', 'ask', {'text': 'x', 'settings': {'temperature': 'hot'}}, 422),
            ('POST', 'ask', {'text': 'x', 'settings': {'top_p': 1e400}}, 400), ('POST', 'answer', {'parent': 10 ** 9}, 404), ('POST', 'answer', {}, 422),
            ('GET', 'chats/x', None, 404), ('GET', 'chats/99999999999999999999', None, 404), ('DELETE', 'chats/999999', None, 404), ('DELETE', 'messages/0', None, 404),
            ('GET', 'answers/12345678', None, 404), ('GET', 'export?format=md', None, 422), ('POST', 'import', {'format': 'hadal-chats', 'version': 1, 'chats': [{}]}, 422),
            ('POST', 'stop/77777', {}, 200), ('PUT', 'ask', {'text': 'x'}, 405)):
        status, r = s.call(method, path, body)
        check(status in (want, 400 if want == 422 else want), f'{method} {path} {body} is {want}', (status, r))
    long = 'word ' * 3000
    status, r = s.call('POST', 'ask', {'text': long})
    _, c = s.call('GET', f'chats/{r["chat"]}') if status == 200 else (0, {'messages': [{}]})
    for _ in range(50):
        if c['messages'][-1].get('state') != 'running':
            break
        time.sleep(.05)
        _, c = s.call('GET', f'chats/{r["chat"]}')
    check(c['messages'][-1].get('state') == 'failed' and '1024' in c['messages'][-1]['info'].get('error', ''), 'too long for the context: kept, failed, with both numbers', c['messages'][-1].get('info'))
    check(len(everything(s)) == n + 1, 'nothing else was stored')


def stop_and_continue(s):
    _, r = s.call('POST', 'ask', {'text': 'Tell me a very long story about a whale.'})
    for _ in range(100):
        _, c = s.call('GET', f'chats/{r["chat"]}')
        if len(c['messages'][-1]['text']) > 20 or c['messages'][-1]['state'] != 'running':
            break
        time.sleep(.1)
    s.call('POST', f'stop/{r["answer"]}', {})
    for _ in range(50):
        _, c = s.call('GET', f'chats/{r["chat"]}')
        if c['messages'][-1]['state'] != 'running':
            break
        time.sleep(.05)
    m = c['messages'][-1]
    check(m['state'] in ('stopped', 'done', 'length') and len(m['text']) > 20, 'stopped, with its text', m['state'])
    if m['state'] == 'stopped':
        status, _ = s.call('POST', 'answer', {'continue': m['id']})
        s.call('POST', f'stop/{m["id"]}', {})
        time.sleep(.3)
        _, c = s.call('GET', f'chats/{r["chat"]}')
        check(status == 200 and c['messages'][-1]['text'].startswith(m['text']) and c['messages'][-1]['id'] == m['id'], 'it goes on from there')
    s.call('DELETE', f'chats/{r["chat"]}')
    check(s.call('GET', f'chats/{r["chat"]}')[0] == 404, 'a deleted chat is gone')


def main():
    if not MODEL:
        print('test_chats: no model at hand (HADAL_TEST_MODEL)', file=sys.stderr)
        check(False, 'what is tested')
        finish()
    with tempfile.TemporaryDirectory() as folder:
        s = Server(folder, '--ctx', '1024')
        try:
            wrong(s)
            stop_and_continue(s)
            killed(s)
            full_disk(s)
            failing_sync(s)
        finally:
            if s.process.poll() is None:
                s.stop()
    finish()


if __name__ == '__main__':
    main()
