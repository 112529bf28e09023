#!/usr/bin/env python3
"""A live model that thinks (thinker.py), through every dialect and the page's routes: what is thought is told apart from what is said,
and after it the next turn, which begins without the thought, is in the cache when it is asked for."""
import http.client
import json
import os
import signal
import subprocess
import tempfile
import threading
import time

import thinker
from counted import check, finish

HADAL = os.environ.get("HADAL", "build/hadal")
LONG = "Tell me " + "of one thing and the next thing " * 6


class Server:
    def __init__(self, folder, *options):
        model = f"{folder}/thinker.gguf"
        if not os.path.exists(model):
            thinker.write(model)
        env = dict(os.environ, XDG_CACHE_HOME=f"{folder}/cache", XDG_STATE_HOME=f"{folder}/state")
        self.log = open(f"{folder}/log", "a")
        self.process = subprocess.Popen([HADAL, "serve", model, "--port", "0", "--sessions", "4", *options], stdout=subprocess.PIPE,
                                        stderr=self.log, text=True, env=env)
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1].strip("/\n"))

    def call(self, method, path, body=None, **head):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        text = None if body is None else json.dumps(body)
        c.request(method, path, text, {**({"Content-Type": "application/json"} if text else {}), **{k.replace("_", "-"): v for k, v in head.items()}})
        r = c.getresponse()
        return r.status, r.read()

    def post(self, path, body, **head):
        status, text = self.call("POST", path, body, **head)
        if status != 200:
            check(False, text)
        return json.loads(text)

    def events(self, path, body=None):
        """The data of a stream's events."""
        status, text = self.call("POST" if body else "GET", path, body)
        check(status == 200, text)
        return [json.loads(line[6:]) for line in text.decode().split("\n") if line.startswith("data: ") and line != "data: [DONE]"]

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        check(self.process.wait(20) == 0, "it ends well")
        self.process.stdout.close()
        self.log.close()


def user(text):
    return {"role": "user", "content": text}


def joined(pieces):
    return "".join(p for p in pieces if p)


def dialects(s):
    body = {"messages": [user("Hi")]}
    r = s.post("/v1/chat/completions", body)
    m = r["choices"][0]["message"]
    check(m["content"] == thinker.ANSWER and m["reasoning_content"] == thinker.THOUGHT, m)
    check(r["choices"][0]["finish_reason"] == "stop" and r["usage"]["completion_tokens_details"]["reasoning_tokens"] == 26, r)
    e = s.events("/v1/chat/completions", {**body, "stream": True, "stream_options": {"include_usage": True}})
    deltas = [x["choices"][0]["delta"] for x in e if x["choices"]]
    check(joined(d.get("reasoning_content") for d in deltas) == thinker.THOUGHT)
    check(joined(d.get("content") for d in deltas) == thinker.ANSWER)
    first = next(i for i, d in enumerate(deltas) if d.get("content"))
    check(not any(d.get("reasoning_content") for d in deltas[first:]), "no thought behind the answer's beginning")
    check(e[-1]["usage"]["completion_tokens_details"]["reasoning_tokens"] == 26, e[-1])
    r = s.post("/v1/chat/completions", {**body, "max_tokens": 10})["choices"][0]
    check(r["finish_reason"] == "length" and r["message"]["reasoning_content"] == "abcdefghij" and not r["message"]["content"], r)
    r = s.post("/v1/chat/completions", {"messages": [user("Hi"), {"role": "assistant", "content": "word 37, ", "prefix": True}], "max_tokens": 1})
    check("reasoning_content" not in r["choices"][0]["message"], r)

    a = s.post("/v1/messages", {**body, "max_tokens": 200, "thinking": {"type": "enabled", "budget_tokens": 1024}})
    check([(b["type"], b.get("thinking") or b.get("text")) for b in a["content"]] == [("thinking", thinker.THOUGHT), ("text", thinker.ANSWER)], a)
    short = s.post("/v1/messages", {**body, "max_tokens": 200, "thinking": {"type": "enabled", "budget_tokens": 5}})["content"]
    check(short[0]["thinking"] == "abcde" and short[1]["text"] == thinker.ANSWER, short)
    e = s.events("/v1/messages", {**body, "max_tokens": 200, "stream": True, "thinking": {"type": "enabled", "budget_tokens": 1024}})
    kinds = [x["content_block"]["type"] for x in e if x["type"] == "content_block_start"]
    check(kinds == ["thinking", "text"], kinds)
    check(joined(x["delta"].get("thinking") for x in e if x["type"] == "content_block_delta") == thinker.THOUGHT)
    check(joined(x["delta"].get("text") for x in e if x["type"] == "content_block_delta") == thinker.ANSWER)

    o = s.post("/api/chat", {**body, "stream": False, "think": True})["message"]
    check(o["thinking"] == thinker.THOUGHT and o["content"] == thinker.ANSWER, o)
    r = s.post("/v1/responses", {"input": "Hi"})["output"]
    check([x["type"] for x in r] == ["reasoning", "message"] and r[0]["content"][0]["text"] == thinker.THOUGHT and
          r[1]["content"][0]["text"] == thinker.ANSWER, r)
    e = s.events("/v1/responses", {"input": "Hi", "stream": True})
    check(joined(x.get("delta") for x in e if x["type"] == "response.reasoning_text.delta") == thinker.THOUGHT)
    check(joined(x.get("delta") for x in e if x["type"] == "response.output_text.delta") == thinker.ANSWER)
    ruled = s.post("/v1/chat/completions", {**body, "grammar": 'root ::= "yes"'})["choices"][0]["message"]
    check(ruled["reasoning_content"] == thinker.THOUGHT and ruled["content"] == "yes", ruled)


def tokens(s, messages):
    return len(s.post("/tokenize", {"messages": messages})["tokens"])


def next_turn(s):
    first = [user(LONG)]
    before = tokens(s, first)
    r = s.post("/v1/chat/completions", {"messages": first})
    check(r["usage"]["prompt_cache_hit_tokens"] == 0, r["usage"])
    turn = first + [{"role": "assistant", "content": r["choices"][0]["message"]["content"]}, user("And then?")]
    whole = tokens(s, turn)
    check(whole > before + len(thinker.ANSWER), (whole, before))
    wait_idle(s)
    r = s.post("/v1/chat/completions", {"messages": turn, "max_tokens": 1})["usage"]
    check(r["prompt_cache_hit_tokens"] > whole - 64 - 20, f"of {whole} ids {r['prompt_cache_hit_tokens']} were computed ahead")
    # Who is cut off or goes away has no next turn.
    other = [user("But " + LONG)]
    s.post("/v1/chat/completions", {"messages": other, "max_tokens": 40})
    wait_idle(s)
    r = s.post("/v1/chat/completions", {"messages": other + [{"role": "assistant", "content": thinker.ANSWER}, user("x")], "max_tokens": 1})["usage"]
    check(r["prompt_cache_hit_tokens"] < tokens(s, other), r)


def wait_idle(s):
    """Nothing computes any more: the process uses no time."""
    last, calm = None, 0
    for _ in range(200):
        now = open(f"/proc/{s.process.pid}/stat").read().split()[13:15]
        calm = calm + 1 if now == last else 0
        if calm >= 4:
            return
        last = now
        time.sleep(.05)


def page(s):
    ask = s.post("/api/ui/ask", {"text": "Once " + LONG})
    e = s.events(f"/api/ui/answers/{ask['answer']}")
    check(joined(x.get("d") for x in e if x["t"] == "think") == thinker.THOUGHT, e)
    check(joined(x.get("d") for x in e if x["t"] == "text") == thinker.ANSWER)
    done = e[-1]["message"]
    check(e[-1]["t"] == "done" and done["state"] == "done" and done["info"]["thinking_tok"] == 26 and "think_ms" in done["info"], done)
    m = json.loads(s.call("GET", f"/api/ui/chats/{ask['chat']}")[1])["messages"][-1]
    check(m["thinking"] == thinker.THOUGHT and m["text"] == thinker.ANSWER, m)
    wait_idle(s)
    again = s.post("/api/ui/ask", {"chat": ask["chat"], "parent": ask["answer"], "text": "And then?"})
    info = s.events(f"/api/ui/answers/{again['answer']}")[-1]["message"]["info"]
    check(info["cached_tok"] > info["prompt_tok"] - 64 - 20, info)


def patient(s):
    """Megabytes that are read for one keep nobody else waiting: a small request that comes behind them is answered first."""
    order = []

    def big():
        c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=120)
        c.request("POST", "/tokenize", json.dumps({"content": "ab " * 340000}), {"Content-Type": "application/json"})
        sent.set()
        r = c.getresponse()
        check(r.status == 200, r.read()[:200])
        order.append("big")
    for _ in range(2):
        sent = threading.Event()
        t = threading.Thread(target=big)
        t.start()
        sent.wait()
        check(s.call("GET", "/health")[0] == 200)
        check(s.post("/tokenize", {"content": "ab"})["count"] == 2)
        order.append("small")
        t.join()
    check(order == ["small", "big"] * 2, order)


def shared(folder):
    """Two users (keys) who say the operator's words before their own: the second finds the first's; without the option he does not."""
    prefix = "You are a careful helper. " * 12
    keys = ["the-first-of-two-long-keys", "the-second-of-two-long-keys"]
    with open(f"{folder}/keys", "w") as f:
        f.write("\n".join(keys))
    with open(f"{folder}/prefix", "w") as f:
        f.write(prefix + "\n")
    for options, want in (((), False), (("--shared-prefix", f"{folder}/prefix"), True)):
        s = Server(folder, "--api-key-file", f"{folder}/keys", "--cache-gb", "0", "--no-chats", *options)
        if want:
            wait_idle(s)
        hits = []
        for i, key in enumerate(keys):
            body = {"messages": [{"role": "system", "content": prefix}, user(f"My secret is {LONG}")], "max_tokens": 1}
            u = s.post("/v1/chat/completions", body, Authorization=f"Bearer {key}")["usage"]
            hits.append(u["prompt_cache_hit_tokens"])
        n = len(prefix) // 64 * 64
        check(all(n - 64 <= h <= n for h in hits) if want else hits == [0, 0], hits)
        s.stop()


def drafts(folder):
    """Guessing ahead changes nothing that is said."""
    said = []
    for options in ((), ("--draft", "lookup")):
        s = Server(folder, "--no-chats", *options)
        texts = [s.post("/v1/chat/completions", {"messages": [user(q)], "seed": 3, "temperature": t, "max_tokens": 90})["choices"][0]["message"]
                 for q in ("Hi", "abc abc abc abc", LONG) for t in (0, 1.5)]
        said.append(texts)
        s.stop()
    check(said[0] == said[1])


def root(s):
    """`GET /`: its own words for ollama's clients, the page for browsers."""
    browser = "text/html,application/xhtml+xml,*/*;q=0.8"
    for method in ("GET", "HEAD"):
        for head, ollama in (({"Accept": "application/json"}, True), ({"Accept": "*/*", "User_Agent": "ollama/0.5.1 (amd64 linux)"}, True),
                             ({"Accept": browser}, False), ({"Accept": browser, "User_Agent": "ollama-like browser"}, False), ({}, False)):
            status, body = s.call(method, "/", **head)
            check(status == 200 and (body == b"" if method == "HEAD" else (body == b"Ollama is running") == ollama), (method, head, body[:40]))


def main():
    with tempfile.TemporaryDirectory() as folder:
        s = Server(folder)
        try:
            dialects(s)
            next_turn(s)
            page(s)
            root(s)
            patient(s)
        finally:
            s.stop()
        shared(folder)
        drafts(folder)
    finish()


if __name__ == "__main__":
    main()
