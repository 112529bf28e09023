#!/usr/bin/env python3
"""Golden vectors of the number formats, and the code books of the IQ formats.

  make_formats.py            write formats/NAME.bin: 4 blocks of random valid bytes, then the float32 they decode to
  make_formats.py tables     print src/kernels/fmt_iq_tables.h

The oracle is gguf-py (github.com/ggml-org/llama.cpp, MIT), gguf.quants.dequantize.  pip install gguf numpy
"""
import pathlib
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T, quants

NAMES = ("f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1 q2_k q3_k q4_k q5_k q6_k iq4_nl iq4_xs "
         "iq1_s iq1_m iq2_xxs iq2_xs iq2_s iq3_xxs iq3_s").split()
# offsets of the f16 numbers in a block: random bytes there could be NaN, so they are drawn as plain numbers
HALVES = {"q8_0": [0], "q4_0": [0], "q4_1": [0, 2], "q5_0": [0], "q5_1": [0, 2], "q2_k": [80, 82], "q3_k": [108],
          "q4_k": [0, 2], "q5_k": [0, 2], "q6_k": [208], "iq4_nl": [0], "iq4_xs": [0], "iq1_s": [0], "iq2_xxs": [0],
          "iq2_xs": [0], "iq2_s": [0], "iq3_xxs": [0], "iq3_s": [0]}


def vectors():
    rng = np.random.default_rng(20240501)
    out = pathlib.Path(__file__).parent / "formats"
    out.mkdir(exist_ok=True)
    for name in NAMES:
        kind = T[name.upper()]
        block, size = GGML_QUANT_SIZES[kind]
        n = 4 if block > 1 else 256
        data = rng.integers(0, 256, (n, size), dtype=np.uint8)
        for at in HALVES.get(name, []):
            data[:, at:at + 2] = rng.normal(0, 0.02, (n, 1)).astype(np.float16).view(np.uint8)
        if name == "iq1_m":  # the f16 lies in the top nibbles of four u16: keep its exponent ordinary
            data[:, 55] = (data[:, 55] & 0x0f) | 0x20
        if name in ("f16", "bf16"):
            data = rng.normal(0, 1, n).astype(np.float32)
            data = (data.astype(np.float16) if name == "f16" else (data.view(np.uint32) >> 16).astype(np.uint16))
            data = data.view(np.uint8).reshape(n, 2)
        y = quants.dequantize(data.reshape(1, -1), kind).astype("<f4")
        assert np.isfinite(y).all(), name
        (out / f"{name}.bin").write_bytes(data.tobytes() + y.tobytes())


def tables():
    print("""/* Code books of the IQ formats.  Printed by tests/golden/make_formats.py from the grids of gguf-py (ggml-org/llama.cpp, MIT
 * licence), which are those of ggml-common.h.  One entry is one group: 8 digits of 2 bits (iq3: 4 digits of 3 bits), the
 * first element lowest; fmt_iq.c maps a digit to its value. */
#ifndef HD_KERNELS_FMT_IQ_TABLES_H
#define HD_KERNELS_FMT_IQ_TABLES_H

#include <stdint.h>
""")
    for name in "iq1_s iq2_xxs iq2_xs iq2_s iq3_xxs iq3_s".split():
        cls = quants._type_traits[T[name.upper()]]
        cls.init_grid()
        grid = cls.grid.reshape(cls.grid_shape)
        bits = 2 if cls.grid_shape[1] == 8 else 3
        digit = {v: i for i, v in enumerate(cls.grid_map)}
        codes = [sum(digit[int(v)] << bits * i for i, v in enumerate(row)) for row in grid]
        print(f"static const uint16_t {name}_grid[{len(codes)}] = {{")
        for i in range(0, len(codes), 16):
            print("    " + ", ".join(f"{c}" for c in codes[i:i + 16]) + ",")
        print("};\n")
    print("#endif")


tables() if sys.argv[1:] == ["tables"] else vectors()
