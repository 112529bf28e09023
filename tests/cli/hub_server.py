"""A hub for the tests of `hadal pull` and `hadal data get`, on this machine only: hub_server.py LOG.  Prints its address and serves until killed.

The repository's name says how the server behaves: o/cut breaks off every answer, o/wrong sends other bytes than the listing
promises, and so on (see Hub.file).  LOG gets a line a request: path, Range, If-Range, whether a token came along."""
import hashlib
import json
import random
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

random.seed(1)
DATA = random.randbytes(300_000)
OTHER = random.randbytes(300_000)
SMALL = json.dumps({"architectures": ["LlamaForCausalLM"]}).encode()
TOKEN = "Bearer hf_secret"
seen = {}  # requests of each file so far
lock = threading.Lock()


def files_of(repo):
    if repo == "split":
        return {f"big/m-q4_k_m-{k:05d}-of-00003.gguf": DATA[k * 1000:k * 1000 + 5000] for k in (1, 2, 3)}
    if repo == "hole":
        return {f"m-q4_k_m-{k:05d}-of-00003.gguf": DATA[k * 1000:k * 1000 + 5000] for k in (1, 3)}
    if repo == "hf":
        return {"config.json": SMALL, "tokenizer.json": b"{}", "model.safetensors": DATA, "original/consolidated.00.pth": DATA,
                "README.md": b"# hf", "pytorch_model.bin": DATA}
    if repo == "up":
        return {"../../../evil.gguf": DATA}
    if repo == "absolute":
        return {"/tmp/hadal-evil.gguf": DATA}
    if repo == "hidden":
        return {"a/.ssh/x.gguf": DATA}
    if repo == "corpora":  # a mirror of corpora whose bytes are not those of the table
        return {"tinyshakespeare/input.txt": (DATA * 4)[:1115394], "svamp/SVAMP.json": DATA}
    if repo == "escape":
        return {"a\x1b[31m.gguf": DATA}
    return {"m-q4_k_m.gguf": DATA, "m-q8_0.gguf": OTHER, "mmproj-f16.gguf": SMALL, "README.md": b"# model"}


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", length=None, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def do_GET(self):
        with lock:
            with open(sys.argv[1], "a") as log:
                print(self.server.name, self.path, self.headers.get("Range", "-"), self.headers.get("If-Range", "-"),
                      "token" if self.headers.get("Authorization") else "-", file=log)
            n = seen[self.path] = seen.get(self.path, 0) + 1
        part = self.path.split("?")[0].split("/")
        try:
            if self.server.name == "other":
                self.answer(400 if self.headers.get("Authorization") else 200, DATA)
            elif part[1:3] == ["api", "models"]:
                self.listing(part[4], "page=2" in self.path)
            else:
                self.file(part[2], "/".join(part[5:]), n)
        except ConnectionError:
            pass

    def listing(self, repo, second):
        if repo in ("e401", "e403", "e404", "e500"):
            return self.answer(int(repo[1:]), b"no")
        if repo == "private" and self.headers.get("Authorization") != TOKEN:
            return self.answer(401, b"no")
        if repo == "junk":
            return self.answer(200, b"<html>")
        if repo == "deep":
            return self.answer(200, b"[" * 1_000_000)
        if repo == "endless":
            return self.answer(200, b"[]", Link=f'<{self.server.url}{self.path}>; rel="next"')
        items = [{"type": "directory", "path": "big", "size": 0}]
        for path, data in files_of(repo).items():
            item = {"type": "file", "path": path, "size": len(data), "oid": "0" * 40}
            if not path.endswith((".json", ".md")):
                item["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data)}
            if "lfs" not in item:
                pass
            elif repo == "badsum":
                item["lfs"]["oid"] = "../../etc/passwd"
            elif repo == "negative":
                item["size"] = item["lfs"]["size"] = -1
            elif repo == "huge":
                item["size"] = item["lfs"]["size"] = 1 << 62
            items.append(item)
        if repo == "paged" and not second:
            link = f'<{self.server.url}{self.path}&page=2>; rel="next"'
            return self.answer(200, json.dumps(items[:1]).encode(), Link=link)
        self.answer(200, json.dumps(items).encode())

    def file(self, repo, path, n):
        data = files_of(repo)[path]
        etag = '"v1"'
        begin = 0
        asked = self.headers.get("Range")
        if repo == "private" and self.headers.get("Authorization") != TOKEN:
            return self.answer(403, b"no")
        if repo in ("private", "moved"):  # as the hub does: weights lie on another host
            return self.answer(302, b"elsewhere", Location=self.server.other + "/blob")
        if repo == "loop":
            return self.answer(302, b"again", Location=self.path)
        if repo == "file":
            return self.answer(302, b"here", Location="file:///etc/passwd")
        if repo == "gone":
            return self.answer(404, b"not a model")
        if repo == "down" or (repo == "flaky" and n <= 2):
            return self.answer(503, b"not a model", Retry_After="0")
        if repo == "changing" and n > 1:
            etag = '"v2"'
        if repo == "changing" and n == 1:
            data = OTHER
        if repo == "stale" and n == 1:
            data = OTHER
        if repo == "wrong" or (repo == "wrong-once" and n == 1):
            data = data[:1000] + b"!" + data[1001:]
        if repo == "more":
            return self.answer(200, data + b"x" * 1000)
        if repo == "less":
            return self.answer(200, data[:1000])
        if repo == "chunks":  # no length at all, and no end
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")
            return None
        same = self.headers.get("If-Range") in (None, etag)
        if asked and (same or repo == "stale") and repo != "no-range":
            begin = int(asked.split("=")[1].split("-")[0])
        status, more = 200, {}
        if begin:
            status = 206
            said = 0 if repo == "other-range" else begin
            total = 5 if repo == "other-total" else len(data)
            more["Content_Range"] = f"bytes {said}-{len(data) - 1}/{total}"
            if repo == "stale":
                etag = '"v2"'
        body = data[begin:]
        cut = len(body)
        if repo in ("cut", "hf") or (repo in ("no-range", "changing", "stale", "other-range", "other-total") and n <= 2):
            cut = min(100_000, cut)
        if repo == "stop" and n == 1:
            cut = 100_000
        if repo == "stop" and n == 2:
            return self.answer(404, b"no")
        if repo == "slow":
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            for i in range(0, len(body), 1000):
                self.wfile.write(body[i:i + 1000])
                self.wfile.flush()
                time.sleep(0.05)
            return None
        self.answer(status, body[:cut], len(body), ETag=etag, Accept_Ranges="bytes", **more)
        return None


def start(name):
    s = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    s.name, s.url, s.daemon_threads = name, f"http://127.0.0.1:{s.server_port}", True
    threading.Thread(target=s.serve_forever, daemon=True).start()
    return s


other = start("other")
hub = start("hub")
hub.other = other.url
print(hub.url, flush=True)
threading.Event().wait()
