#!/usr/bin/env python3
"""Anthropic's own Python client, unchanged, against the server: messages, streams, tools, counting, errors, models."""
import sdk

anthropic = sdk.need("anthropic")
from sdk import check, raises  # noqa: E402

GREEDY = {"temperature": 0}  # recent versions of the client have no such argument, but send what they are given
SAY = [{"role": "user", "content": "Say hello."}]
TOOL = {"name": "get_weather", "description": "The weather of a city now",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"],
                         "additionalProperties": False}}


def create(c, **more):
    return c.messages.create(**{"model": "tiny", "messages": SAY, "max_tokens": 24, "extra_body": GREEDY, **more})


def whole(c):
    r = create(c, system="Be brief.")
    check(r.type == "message" and r.role == "assistant" and r.content[0].type == "text" and r.content[0].text, r)
    check(r.stop_reason in ("end_turn", "max_tokens") and r.usage.output_tokens > 0, r)
    check(create(c, max_tokens=2).stop_reason == "max_tokens")
    text = create(c).content[0].text
    r = create(c, stop_sequences=[text[4:7]])
    check(r.stop_reason == "stop_sequence" and r.stop_sequence == text[4:7] and r.content[0].text == text[:text.index(text[4:7])], r)
    r = create(c, system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}])
    check(r.usage.input_tokens + r.usage.cache_read_input_tokens > 10, r)
    r = create(c, messages=SAY + [{"role": "assistant", "content": "Hello, dear"}])
    check(r.content[0].text and not r.content[0].text.startswith("Hello, dear"), r)
    return text


def streams(c, text):
    with c.messages.stream(model="tiny", messages=SAY, max_tokens=24, extra_body=GREEDY) as s:
        got = "".join(s.text_stream)
        last = s.get_final_message()
    check(got == text and last.content[0].text == text and last.usage.output_tokens > 0 and last.stop_reason, last)
    types = [e.type for e in create(c, stream=True)]
    check(types[0] == "message_start" and types[-1] == "message_stop" and "content_block_delta" in types, types)


def tools(c):
    ask = [{"role": "user", "content": "What is the weather in Paris?"}]
    for choice in ({"type": "any"}, {"type": "tool", "name": "get_weather"}):
        r = create(c, messages=ask, tools=[TOOL], tool_choice=choice, max_tokens=80)
        use = [b for b in r.content if b.type == "tool_use"]
        check(len(use) == 1 and use[0].name == "get_weather" and r.stop_reason == "tool_use" and "city" in use[0].input, r)
    with c.messages.stream(model="tiny", messages=ask, tools=[TOOL], tool_choice={"type": "any"}, max_tokens=80, extra_body=GREEDY) as s:
        last = s.get_final_message()
    check(last.content[0].type == "tool_use" and last.content[0].input == use[0].input, last)
    answer = {"type": "tool_result", "tool_use_id": use[0].id, "content": [{"type": "text", "text": "sunny"}]}
    r = create(c, messages=ask + [{"role": "assistant", "content": [b.model_dump() for b in r.content]}, {"role": "user", "content": [answer]}],
               tools=[TOOL])
    check(r.content, r)


def others(c):
    n = c.messages.count_tokens(model="tiny", messages=SAY).input_tokens
    usage = create(c).usage
    check(n == usage.input_tokens + usage.cache_read_input_tokens, (n, usage))
    check(c.messages.count_tokens(model="tiny", messages=SAY, tools=[TOOL]).input_tokens > n + 50)
    check("tiny" in [m.id for m in c.models.list()] and c.models.retrieve("tiny").display_name == "tiny")
    e = raises(anthropic.NotFoundError, lambda: create(c, model="claude-9"), "unknown model")
    check(e and e.body["type"] == "error" and e.body["error"]["type"] == "not_found_error", e)
    raises(anthropic.BadRequestError, lambda: create(c, messages=[]), "no messages")
    raises(anthropic.UnprocessableEntityError, lambda: create(c, extra_body={"temperature": 7}), "range")
    raises(anthropic.BadRequestError, lambda: create(c, messages=[{"role": "user", "content": "word " * 5000}]), "too long")


with sdk.Server("--alias", "tiny") as server:
    client = anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0)
    said = whole(client)
    streams(client, said)
    tools(client)
    others(client)
sdk.finish()
