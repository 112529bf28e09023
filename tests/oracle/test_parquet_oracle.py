#!/usr/bin/env python3
"""Parquet files that pyarrow writes in every way that hadal reads, row by row against `hadal data show --json`.

Needs the Python package pyarrow; without it nothing is compared.  HADAL_TEST_PARQUET=FILE:FILE... adds files of others, whose
first text column is compared.
"""
import itertools
import json
import os
import random
import subprocess
import tempfile

from counted import check, finish

HADAL = os.environ.get("HADAL", "build/hadal")


def texts(path, field):
    run = subprocess.run([HADAL, "data", "show", path, "--field", field, "-n", "100000000", "--json"], capture_output=True)
    if run.returncode:
        return run.stderr.decode("utf-8", "replace")
    return [json.loads(line)["text"] for line in run.stdout.splitlines()]


def kept(rows):
    return [r for r in rows if r is not None and r.strip(" \t\r\n")]


def rows_of(kind, n, r):
    """Texts as corpora have them: documents, labels that repeat, mostly nothing, long runs, all scripts."""
    words = [r.choice("aäßéж中🙂bcdefg") * r.randrange(1, 9) for _ in range(400)]
    if kind == "labels":
        return [r.choice(words[:17]) for _ in range(n)]
    if kind == "runs":
        return [words[i // 97 % 400] if i // 300 % 3 else None for i in range(n)]
    if kind == "sparse":
        return ["".join(r.choices(words, k=3)) if r.random() < 0.02 else None for _ in range(n)]
    return [None if r.random() < 0.1 else " ".join(r.choices(words, k=r.randrange(0, 60))) for _ in range(n)]


def main():
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        print("pyarrow is not there: nothing compared")
        return
    r = random.Random(5)
    with tempfile.TemporaryDirectory() as tmp:
        path = os.path.join(tmp, "t.parquet")
        ways = itertools.product(("none", "snappy", "zstd"), ("1.0", "2.0"), ("documents", "labels", "runs", "sparse"),
                                 (True, False), ("string", "large_string", "required"))
        for codec, version, kind, use_dict, typ in ways:
            n = r.choice((1, 7, 1000, 6000))
            rows = rows_of(kind, n, r)
            nullable = typ != "required"
            if not nullable:
                rows = [x or "-" for x in rows]
            t = pa.large_string() if typ == "large_string" else pa.string()
            schema = pa.schema([("a", pa.int32()), ("l", pa.list_(pa.int64())), pa.field("text", t, nullable=nullable),
                                ("z", pa.string())])
            table = pa.table([list(range(n)), [[1, 2]] * n, rows, ["z"] * n], schema=schema)
            pq.write_table(table, path, compression=codec, data_page_version=version, use_dictionary=use_dict,
                           row_group_size=r.choice((100, 2500, 100000)), data_page_size=r.choice((200, 20000, 1 << 20)),
                           dictionary_pagesize_limit=r.choice((100, 5000, 1 << 20)), write_page_index=r.random() < 0.3,
                           write_page_checksum=r.random() < 0.3)
            got = texts(path, "text")
            check(got == kept(rows), f"{codec} v{version} {kind} dictionary={use_dict} {typ}, {n} rows: {str(got)[:200]}")
        table = pa.table({"text": ["x" * 3_000_000, "ab" * 2_000_000]})  # values longer than any page should be
        for codec in "none", "snappy", "zstd":
            pq.write_table(table, path, compression=codec)
            check(texts(path, "text") == table["text"].to_pylist(), f"long values, {codec}")
        pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
        check(texts(path, "text") == [], "no rows")
    for path in filter(None, os.environ.get("HADAL_TEST_PARQUET", "").split(":")):
        table = pq.read_table(path)
        field = next(f.name for f in table.schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type))
        check(texts(path, field) == kept(table[field].to_pylist()), path)


main()
finish()
