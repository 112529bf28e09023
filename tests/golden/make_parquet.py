#!/usr/bin/env python3
"""Parquet files as pyarrow writes them, for tests/unit/test_parquet.c and the corpus of fuzz_parquet.  pip install pyarrow

Column "text" of 200 rows in two row groups: row i is null when i % 7 == 3, empty when i % 11 == 5, "w" and i * i % 13 when
i < 90, else "row I " and "ab" i % 9 times.  Its neighbours are numbers, a list and a structure, so that it is not the first
leaf; column "must" is the same without nulls ("-" in their place), required.
"""
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq


def row(i):
    if i % 7 == 3:
        return None
    if i % 11 == 5:
        return ""
    return f"w{i * i % 13}" if i < 90 else f"row {i} " + "ab" * (i % 9)


rows = [row(i) for i in range(200)]
schema = pa.schema([
    pa.field("n", pa.int64()),
    pa.field("tags", pa.list_(pa.string())),
    pa.field("pair", pa.struct([("text", pa.string()), ("x", pa.float32())])),
    pa.field("text", pa.string()),
    pa.field("must", pa.binary(), nullable=False),
])
table = pa.table([
    list(range(200)),
    [["t"] * (i % 3) for i in range(200)],
    [{"text": "no", "x": 1.0}] * 200,
    rows,
    [(r or "-").encode() if r is None else r.encode() for r in rows],
], schema=schema)
folder = pathlib.Path(__file__).parent / "parquet"
folder.mkdir(exist_ok=True)
for codec in "none", "snappy", "zstd":
    for version in "1.0", "2.0":
        # small pages: several a chunk; "mixed": the dictionary fills up and the rest is plain
        for name, more in ("plain", {"use_dictionary": False}), ("dict", {}), ("mixed", {"dictionary_pagesize_limit": 300}):
            pq.write_table(table, folder / f"{codec}-v{version[0]}-{name}.parquet", compression=codec, data_page_version=version,
                           row_group_size=120, data_page_size=400, write_batch_size=20, write_statistics=False,
                           store_schema=False, **more)
pq.write_table(table.select(["text"]), folder / "gzip.parquet", compression="gzip", write_statistics=False, store_schema=False)
pq.write_table(table.select(["text"]), folder / "delta.parquet", compression="none", write_statistics=False, store_schema=False,
               use_dictionary=False, column_encoding={"text": "DELTA_LENGTH_BYTE_ARRAY"})
