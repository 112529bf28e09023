#!/usr/bin/env python3
"""300 random JSON schemas of the supported keywords: each compiles, random walks of a real tokenizer through it end, and what
they spell is JSON that Python's jsonschema accepts.

    HADAL_TEST_MODEL=FILE     whose tokenizer walks (another one may be named with HADAL_TEST_TOKENIZER)
    HADAL_TEST_SEED=N         other schemas (1)

The package jsonschema is taken from this Python, else installed into a folder of the build; without it nothing is compared.
"""
import collections
import json
import os
import random
import subprocess
import sys

from counted import check, finish

BUILD = os.environ.get("HADAL_BUILD", "build")
MODEL = os.environ.get("HADAL_TEST_TOKENIZER") or os.environ.get("HADAL_TEST_MODEL", "")
SEED = int(os.environ.get("HADAL_TEST_SEED", "1"))
SCHEMAS, WALKS = 300, 4


def with_jsonschema():
    """Goes on in a Python that has the package; False when there is none to be had."""
    try:
        import jsonschema  # noqa: F401
        import rfc3339_validator  # noqa: F401  (what checks date-time and time)
        return True
    except ImportError:
        pass
    venv = os.path.join(BUILD, "venv-jsonschema")
    python = os.path.join(venv, "bin", "python")
    if sys.executable != os.path.abspath(python):
        made = os.path.exists(python) or subprocess.run([sys.executable, "-m", "venv", venv]).returncode == 0
        if made and subprocess.run([python, "-m", "pip", "-q", "install", "jsonschema", "rfc3339-validator"]).returncode == 0:
            os.execv(python, [os.path.abspath(python)] + sys.argv)
    return False


NAMES = ["a", "b", "name", "age", "is_ok", "été", "中文", "with space", "quo\"te", "back\\slash", "x-1", "namesake", "na", "n", ""]
PATTERNS = ["^[a-z]{1,8}$", "^[A-Z][a-z]+( [A-Z][a-z]+)*$", "^\\d{3}-\\d{4}$", "^(foo|bar|b\\.z)$", "[0-9]", "^x.*y$", "^[^aeiou\"\\\\]{2,5}$",
            "^\\w+@\\w+$", "a+b?c*$", "^\\S+\\s\\S+$", "^#([0-9a-f]{3}){1,2}$", "^.$", "^é+$", "^(?:ab|cd){2}|z$", "^[\\W\\d]{3}$"]
FORMATS = ["date", "time", "date-time", "uuid", "email", "ipv4"]


def bounds(rng, low, high, as_float):
    draw = (lambda: round(rng.uniform(low, high), rng.randrange(4))) if as_float else (lambda: rng.randrange(low, high))
    a, b = sorted([draw(), draw()])
    out = {}
    if rng.random() < 0.7:
        out[rng.choice(["minimum", "exclusiveMinimum"])] = a
    if rng.random() < 0.7:
        out[rng.choice(["maximum", "exclusiveMaximum"])] = b + 2
    return out


def string(rng):
    kind = rng.random()
    if kind < 0.3:
        return {"type": "string"}
    if kind < 0.55:
        low = rng.randrange(4)
        s = {"type": "string"}
        if rng.random() < 0.6:
            s["minLength"] = low
        if rng.random() < 0.7:
            s["maxLength"] = low + rng.randrange(30)
        return s
    if kind < 0.6:
        return {"type": "string", "pattern": "^[a-f]+$", "minLength": 2, "maxLength": 6}
    if kind < 0.8:
        return {"type": "string", "pattern": rng.choice(PATTERNS)}
    return {"type": "string", "format": rng.choice(FORMATS)}


def scalar(rng):
    kind = rng.randrange(8)
    if kind == 0:
        return {"type": "boolean"}
    if kind == 1:
        return {"type": "null"}
    if kind == 2:
        return {"type": "integer", **bounds(rng, -10 ** rng.randrange(1, 9), 10 ** rng.randrange(1, 9), False)}
    if kind == 3:
        return {"type": "number", **bounds(rng, -100, 100 ** rng.randrange(1, 3), True)}
    if kind == 4:
        values = ["red", "green", "greenish", 1, -2.5, None, True, [1, "a"], {"k": "v"}, "é\n", ""]
        return {"enum": rng.sample(values, rng.randrange(1, 6))}
    if kind == 5:
        return {"const": rng.choice(["fixed", 7, None, False, "\"q\""])}
    return string(rng)


def members(rng, depth, defs):
    names = rng.sample(NAMES, rng.randrange(5))
    s = {"type": "object", "properties": {n: schema(rng, depth - 1, defs) for n in names}}
    required = [n for n in names if rng.random() < 0.5]
    if required:
        s["required"] = required
    kind = rng.random()
    if kind < 0.4:
        s["additionalProperties"] = False
    elif kind < 0.5:
        s["additionalProperties"] = True
    elif kind < 0.65:
        s["additionalProperties"] = scalar(rng)
    return s


def array(rng, depth, defs):
    s = {"type": "array"}
    if rng.random() < 0.8:
        s["items"] = schema(rng, depth - 1, defs)
    low = rng.randrange(3)
    if rng.random() < 0.4:
        s["minItems"] = low
    if rng.random() < 0.5:
        s["maxItems"] = low + rng.randrange(4)
    if rng.random() < 0.25:
        s["prefixItems"] = [scalar(rng) for _ in range(rng.randrange(1, 4))]
    return s


def joined(rng, depth, defs):
    kind = rng.randrange(4)
    if kind == 0:
        return {"anyOf": [schema(rng, depth - 1, defs) for _ in range(rng.randrange(1, 4))]}
    if kind == 1:  # told apart by a constant
        return {"oneOf": [{"type": "object", "properties": {"kind": {"const": k}, "v": schema(rng, depth - 1, defs)},
                           "required": ["kind"], "additionalProperties": rng.choice([True, False])} for k in ["p", "q", "r"]]}
    if kind == 2:  # told apart by type
        return {"oneOf": [string(rng), {"type": "integer"}, {"type": ["null", "boolean"]}, array(rng, depth, defs)]}
    a, b = ({"type": "object", "properties": {n: schema(rng, depth - 1, defs) for n in ns}, "required": ns[:1]}
            for ns in (["a", "b"], ["c", "d"]))
    if rng.random() < 0.4:
        a["properties"]["c"] = True
        b["properties"]["a"] = {"description": "as it is"}
    return {"allOf": [a, b], **({"required": ["d"]} if rng.random() < 0.5 else {})}


def schema(rng, depth, defs):
    kind = rng.random()
    if depth <= 0 or kind < 0.4:
        s = scalar(rng)
    elif kind < 0.6:
        s = members(rng, depth, defs)
    elif kind < 0.75:
        s = array(rng, depth, defs)
    elif kind < 0.85:
        s = joined(rng, depth, defs)
    elif kind < 0.92:
        s = {"$ref": "#/$defs/" + rng.choice(list(defs))}
    elif kind < 0.95:
        return {}
    else:
        s = {"type": ["string", "integer", "null"], "minLength": 1, "maximum": 50}
    if rng.random() < 0.2:
        s = {"title": "T", "description": "d", **s}
    return s


def document(rng):
    """Types that refer to each other only where a value can do without."""
    defs = {"tree": {"type": "object", "properties": {"v": scalar(rng), "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
                     "required": ["v"], "additionalProperties": False},
            "list": {"anyOf": [{"type": "null"}, {"type": "array", "prefixItems": [{"$ref": "#/$defs/leaf"}, {"$ref": "#/$defs/list"}],
                                                   "items": False}]},
            "leaf": scalar(rng)}
    s = schema(rng, 3, defs)
    return {**s, "$defs": defs} if "$ref" in json.dumps(s) else s


def main():
    if not os.path.isfile(MODEL) or not with_jsonschema():
        print("no model, or no jsonschema: nothing compared", file=sys.stderr)
        print("0 passed, 0 failed")
        return
    import jsonschema
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    rng = random.Random(SEED)
    documents = [document(rng) for _ in range(SCHEMAS)]
    lines = "".join(json.dumps(d) + "\n" for d in documents)
    run = subprocess.run([os.path.join(BUILD, "tests", "test_schema"), "--walk", MODEL, str(SEED), str(WALKS)], input=lines.encode(),
                         capture_output=True)
    check(run.returncode == 0, run.returncode, run.stderr[-2000:])
    walks = [json.loads(line) for line in run.stdout.decode().split("\n") if line]
    seen = collections.Counter()
    for w in walks:
        d = documents[w["line"]]
        seen[w["line"]] += 1
        if "error" in w:
            check(False, json.dumps(d), w)
            continue
        try:
            value, why = json.loads(w["text"]), None
            why = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(d, format_checker=checker).iter_errors(value))
        except ValueError as e:
            why = e
        check(w["ended"] and why is None, json.dumps(d), w["text"][:500], why and str(why)[:300])
    check(all(seen[i] == WALKS for i in range(SCHEMAS)), "walks are missing")
    good = [w for w in walks if "error" not in w]
    tokens = sum(w["tokens"] + 1 for w in good)
    print(f"{len(documents)} schemas, {len(good)} walks, {tokens} ids: {sum(w['mask_us'] for w in good) / max(1, tokens):.0f} us a mask, "
          f"the slowest {max((w['worst_us'] for w in good), default=0):.0f} us")
    finish()


main()
