#!/usr/bin/env python3
"""OpenAI's own Python client, unchanged, against the server: chat, streams, tools, schemas, errors, models, completions, Responses."""
import json
import threading
from typing import Literal, Optional

import sdk

openai = sdk.need("openai")
from sdk import check, raises  # noqa: E402

SAY = [{"role": "user", "content": "Say hello."}]
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather of a city now",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}, "days": {"type": "integer"}},
                   "required": ["city"], "additionalProperties": False}}}
PERSON = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"},
                                           "kind": {"enum": ["cat", "dog"]}},
          "required": ["name", "age", "kind"], "additionalProperties": False}


def chat(c, **more):
    more = {"model": "tiny", "messages": SAY, "max_tokens": 24, "temperature": 0, "seed": 1, **more}
    return c.chat.completions.create(**more)


def whole(c):
    r = chat(c)
    m = r.choices[0].message
    check(r.object == "chat.completion" and m.role == "assistant" and m.content, r)
    check(r.choices[0].finish_reason in ("stop", "length") and r.usage.total_tokens == r.usage.prompt_tokens + r.usage.completion_tokens)
    check(chat(c).choices[0].message.content == m.content, "the same again")
    long = SAY + [{"role": "assistant", "content": "Hello. " * 100}, {"role": "user", "content": "Again."}]
    chat(c, messages=long)
    again = chat(c, messages=long).usage
    check(again.prompt_tokens_details.cached_tokens == again.prompt_cache_hit_tokens, again)
    check(again.prompt_cache_hit_tokens + again.prompt_cache_miss_tokens == again.prompt_tokens, again)
    check(again.prompt_cache_hit_tokens > 0, "the same prompt is in the cache")
    check(chat(c, max_tokens=3).usage.completion_tokens == 3)
    two = chat(c, n=2, temperature=1)
    check([x.index for x in two.choices] == [0, 1] and two.choices[0].message.content != two.choices[1].message.content, two)
    stopped = chat(c, stop=[m.content[5:8]])
    check(stopped.choices[0].message.content == m.content[:m.content.index(m.content[5:8])], stopped)
    check(stopped.choices[0].finish_reason == "stop")
    r = chat(c, logprobs=True, top_logprobs=3, max_tokens=4).choices[0]
    check(len(r.logprobs.content) == 4 and all(len(t.top_logprobs) == 3 for t in r.logprobs.content), r)
    check(all(t.logprob <= 0 and t.top_logprobs[0].logprob >= t.top_logprobs[1].logprob for t in r.logprobs.content))
    check(b"".join(bytes(t.bytes) for t in r.logprobs.content).decode() == r.message.content, r)
    other = chat(c, logit_bias={t: -100 for t in tokens(c, m.content)[:1]}).choices[0].message.content
    check(other != m.content, "a forbidden token")
    parts = chat(c, messages=[{"role": "user", "content": [{"type": "text", "text": "Say "}, {"type": "text", "text": "hello."}]}])
    check(parts.choices[0].message.content == m.content, "parts of a text are the text")
    check(chat(c, extra_body={"nobody_knows": [1]}).choices[0].message.content == m.content)
    return m.content


def tokens(c, text):
    return c.post("/tokenize", body={"content": text}, cast_to=object)["tokens"]


def streams(c, text):
    got, last, usage, reasons = "", None, None, []
    for chunk in chat(c, stream=True, stream_options={"include_usage": True}):
        if chunk.usage:
            usage = chunk.usage
            check(chunk.choices == [])
        for x in chunk.choices:
            got += x.delta.content or ""
            reasons += [x.finish_reason] if x.finish_reason else []
        last = chunk
    check(got == text, (got, text))
    check(len(reasons) == 1 and usage is not None and last.usage is usage, reasons)
    seen = {0: "", 1: ""}
    for chunk in chat(c, stream=True, n=2, temperature=1):
        for x in chunk.choices:
            seen[x.index] += x.delta.content or ""
    check(seen[0] and seen[1] and seen[0] != seen[1], seen)
    stream = chat(c, stream=True, max_tokens=1000)
    next(iter(stream))
    stream.close()
    check(chat(c).choices[0].message.content == text, "after a client that left")


def structured(c):
    for _ in range(2):
        r = chat(c, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": PERSON, "strict": True}}, max_tokens=80,
                 temperature=1)
        if r.choices[0].finish_reason == "stop":
            v = json.loads(r.choices[0].message.content)
            check(set(v) == {"name", "age", "kind"} and v["kind"] in ("cat", "dog") and isinstance(v["age"], int), v)
        else:
            check(r.choices[0].message.content.startswith("{"), r)
    r = chat(c, response_format={"type": "json_object"}, max_tokens=60)
    check(r.choices[0].message.content.lstrip().startswith("{"), r)
    r = chat(c, extra_body={"grammar": 'root ::= "yes" | "no"'})
    check(r.choices[0].message.content in ("yes", "no"), r)


def tools(c):
    ask = [{"role": "user", "content": "What is the weather in Paris?"}]
    for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
        r = chat(c, messages=ask, tools=[WEATHER], tool_choice=choice, max_tokens=80)
        x = r.choices[0]
        if not check(x.message.tool_calls, x):
            continue
        call = x.message.tool_calls[0]
        check(call.function.name == "get_weather" and x.finish_reason in ("tool_calls", "length"), x)
        if x.finish_reason == "tool_calls":
            check("city" in json.loads(call.function.arguments), call)
    args, ids, reason = "", [], None
    for chunk in chat(c, messages=ask, tools=[WEATHER], tool_choice="required", max_tokens=80, stream=True):
        x = chunk.choices[0]
        for t in x.delta.tool_calls or []:
            args += t.function.arguments or ""
            ids += [t.id] if t.id else []
        reason = x.finish_reason or reason
    check(args == call.function.arguments and len(ids) == 1 and reason == "tool_calls", (args, call))
    r = chat(c, messages=ask + [x_message(call), {"role": "tool", "tool_call_id": call.id, "content": "sunny, 20 C"}], tools=[WEATHER])
    check(r.usage.prompt_tokens > 100, "the definitions are in the prompt")
    check(chat(c, tools=[WEATHER], tool_choice="none").usage.prompt_tokens == chat(c).usage.prompt_tokens)


def x_message(call):
    return {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]}


def errors(c):
    e = raises(openai.NotFoundError, lambda: chat(c, model="gpt-9"), "unknown model")
    check(e and "known:" in e.message and e.code == "model_not_found", e)
    e = raises(openai.UnprocessableEntityError, lambda: chat(c, temperature=3), "range")
    check(e and e.param == "temperature", e)
    raises(openai.BadRequestError, lambda: chat(c, messages=[]), "no messages")
    e = raises(openai.BadRequestError, lambda: chat(c, messages=[{"role": "user", "content": "word " * 5000}]), "too long")
    check(e and e.code == "context_length_exceeded" and "2048" in e.message, e)
    e = raises(openai.UnprocessableEntityError, lambda: chat(c, response_format={"type": "json_schema", "json_schema": {
        "name": "x", "schema": {"type": "array", "uniqueItems": True}}}), "a keyword that is not supported")
    check(e and "uniqueItems" in e.message, e)
    raises(openai.APIStatusError, lambda: c.embeddings.create(model="tiny", input="x"), "embeddings")


def helpers(c):
    """The client's own ways to give a schema as a class."""
    import pydantic

    class Inner(pydantic.BaseModel):
        x: int
        maybe: Optional[int] = None

    class Outer(pydantic.BaseModel):
        inner: Inner
        kind: Literal["a", "b"]

    ask = {"model": "tiny", "messages": SAY, "max_tokens": 100, "temperature": 0}
    r = c.chat.completions.parse(**ask, response_format=Outer)
    check(isinstance(r.choices[0].message.parsed, Outer), r)
    tool = openai.pydantic_function_tool(Inner, name="make")
    with c.chat.completions.stream(**ask, tools=[tool], tool_choice="required") as s:
        types = {e.type for e in s}
        call = s.get_final_completion().choices[0].message.tool_calls[0]
    check("tool_calls.function.arguments.done" in types and isinstance(call.function.parsed_arguments, Inner), (types, call))
    check(isinstance(c.responses.parse(model="tiny", input="x", text_format=Inner, max_output_tokens=100).output_parsed, Inner))


def models(c):
    names = [m.id for m in c.models.list()]
    check(len(names) == 2 and "tiny" in names, names)
    check(c.models.retrieve("tiny").id == "tiny")
    raises(openai.NotFoundError, lambda: c.models.retrieve("nothing"))


def completions(c):
    r = c.completions.create(model="tiny", prompt="Once upon a time", max_tokens=8, temperature=0)
    check(r.choices[0].text and r.choices[0].finish_reason == "length", r)
    got = "".join(x.choices[0].text for x in c.completions.create(model="tiny", prompt="Once upon a time", max_tokens=8, temperature=0,
                                                                  stream=True))
    check(got == r.choices[0].text, got)
    many = c.completions.create(model="tiny", prompt=["One, two,", "Once upon a time"], max_tokens=8, temperature=0, echo=True)
    check(many.choices[1].text == "Once upon a time" + r.choices[0].text, many)
    ids = c.completions.create(model="tiny", prompt=tokens(c, "Once upon a time"), max_tokens=8, temperature=0, logprobs=2)
    check(ids.choices[0].text == r.choices[0].text and len(ids.choices[0].logprobs.tokens) == 8, ids)
    raises(openai.UnprocessableEntityError, lambda: c.completions.create(model="tiny", prompt="a", suffix="b"), "no fill-in-the-middle")


def responses(c):
    r = c.responses.create(model="tiny", input="Say hello.", max_output_tokens=24, temperature=0, instructions="Be brief.")
    check(r.output_text and r.status in ("completed", "incomplete") and r.usage.total_tokens > 20, r)
    got, types = "", []
    for e in c.responses.create(model="tiny", input="Say hello.", max_output_tokens=24, temperature=0, instructions="Be brief.", stream=True):
        types.append(e.type)
        got += e.delta if e.type == "response.output_text.delta" else ""
    check(got == r.output_text and types[0] == "response.created" and types[-1] == f"response.{r.status}", types)
    with c.responses.stream(model="tiny", input="Say hello.", max_output_tokens=200, temperature=0, instructions="Be brief.") as s:
        check(s.get_final_response().output_text.startswith(got))
    tool = {"type": "function", "name": "get_weather", "parameters": WEATHER["function"]["parameters"], "strict": True}
    r = c.responses.create(model="tiny", input="Weather in Paris?", tools=[tool], tool_choice="required", max_output_tokens=80, temperature=0)
    calls = [o for o in r.output if o.type == "function_call"]
    if check(len(calls) == 1 and calls[0].name == "get_weather", r):
        more = c.responses.create(model="tiny", input=[{"role": "user", "content": "Weather in Paris?"}, *[o.model_dump() for o in r.output],
                                                       {"type": "function_call_output", "call_id": calls[0].call_id, "output": "sun"}],
                                  tools=[tool], max_output_tokens=8)
        check(more.usage.output_tokens <= 8, more)
    e = raises(openai.UnprocessableEntityError, lambda: c.responses.create(model="tiny", input="x", previous_response_id="resp_1"))
    check(e and e.param == "previous_response_id", e)


def busy(c):
    """One answers, one waits, a third is refused for now; a client that tries again comes through once they have left."""
    streams = [chat(c, stream=True, max_tokens=1500, temperature=1, logit_bias=no_end(c)) for _ in range(2)]
    e = raises(openai.RateLimitError, lambda: chat(c), "a full queue")
    if e:
        check(int(e.response.headers["retry-after"]) >= 1 and e.response.headers["x-should-retry"] == "true", e.response.headers)
    timer = threading.Timer(0.3, lambda: [s.close() for s in streams])
    timer.start()
    check(chat(c.with_options(max_retries=4)).choices[0].message.content, "the second try")
    timer.join()


def no_end(c):
    return {t: -100 for t in range(3)}  # what ends a text


with sdk.Server("--alias", "tiny", "--parallel", "1", "--queue", "1") as server:
    busy(openai.OpenAI(base_url=server.url, api_key="none", max_retries=0))
with sdk.Server("--alias", "tiny") as server:
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
    said = whole(client)
    streams(client, said)
    structured(client)
    tools(client)
    helpers(client)
    errors(client)
    models(client)
    completions(client)
    responses(client)
    for base in ("", "/beta"):
        other = openai.OpenAI(base_url=server.url + base, api_key="none", max_retries=0)
        check(chat(other).choices[0].message.content == said, base)
sdk.finish()
