#!/usr/bin/env python3
"""ollama's own Python client, unchanged, against the server: chat, generate, streams, tools, formats, names, errors."""
import json

import sdk

ollama = sdk.need("ollama")
from sdk import check, raises  # noqa: E402

SAY = [{"role": "user", "content": "Say hello."}]
GREEDY = {"temperature": 0, "num_predict": 24}
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "The weather of a city now", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}


def chats(c):
    r = c.chat("tiny", SAY, options=GREEDY)
    check(r.message.content and r.done and r.done_reason in ("stop", "length") and r.eval_count > 0, r)
    parts = list(c.chat("tiny", SAY, options=GREEDY, stream=True))
    check("".join(p.message.content for p in parts) == r.message.content and parts[-1].done and not parts[0].done, parts)
    check(c.chat("tiny:latest", SAY, options=GREEDY).message.content == r.message.content)
    r = c.chat("tiny", SAY, options={**GREEDY, "num_predict": 60}, format="json")
    check(r.message.content.lstrip().startswith("{"), r)
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}
    check(isinstance(json.loads(c.chat("tiny", SAY, options=GREEDY, format=schema).message.content)["ok"], bool))
    r = c.chat("tiny", SAY, tools=[TOOL], options=GREEDY)
    check(r.message.content or r.message.tool_calls, r)
    call = {"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    r = c.chat("tiny", SAY + [{"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "sun", "tool_name": "get_weather"}],
               tools=[TOOL], options=GREEDY)
    check(r.prompt_eval_count > 80, r)


def generates(c):
    r = c.generate("tiny", "Say hello.", options=GREEDY)
    check(r.response and r.done, r)
    check("".join(p.response for p in c.generate("tiny", "Say hello.", options=GREEDY, stream=True)) == r.response)
    check(c.generate("tiny", "Once upon a time", raw=True, options=GREEDY).response, "raw")
    check(c.generate("tiny", system="Be brief.", prompt="Say hello.", options=GREEDY).response, "system")
    check(c.generate("tiny").done_reason == "load")


def names(c):
    check("tiny" in [m.model for m in c.list().models])
    check("completion" in c.show("tiny").capabilities)
    check(len(c.ps().models) == 1)
    e = raises(ollama.ResponseError, lambda: c.chat("llama9", SAY), "unknown model")
    check(e and e.status_code == 404 and "known:" in e.error, e)
    e = raises(ollama.ResponseError, lambda: c.embed("tiny", "x"), "embeddings")
    check(e and e.status_code == 501, e)
    e = raises(ollama.ResponseError, lambda: c.chat("tiny", SAY, options={"top_p": 9}), "range")
    check(e and e.status_code == 422 and "options.top_p" in e.error, e)
    e = raises(ollama.ResponseError, lambda: list(c.chat("tiny", [{"role": "user", "content": "word " * 5000}], stream=True)), "too long")
    check(e and e.status_code == 400, e)


with sdk.Server("--alias", "tiny") as server:
    client = ollama.Client(server.url)
    chats(client)
    generates(client)
    names(client)
sdk.finish()
