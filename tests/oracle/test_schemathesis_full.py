#!/usr/bin/env python3
"""schemathesis against /openapi.json: whatever fits the description, and whatever does not, is never answered with a 5xx but for what is not
there by design (embeddings, 501).  HADAL_TEST_EXAMPLES (40) requests are made up for each operation."""
import os
import re
import subprocess
import sys
import tempfile

import sdk

sdk.need("schemathesis", ["schemathesis"])
from sdk import check  # noqa: E402

import thinker  # noqa: E402


def main():
    with tempfile.TemporaryDirectory() as folder:
        sdk.MODEL = f"{folder}/thinker.gguf"  # small, and its answers end
        thinker.write(sdk.MODEL)
        with sdk.Server("--no-chats", "--max-per-address", "512") as s:
            run = subprocess.run(
                [os.path.join(sys.prefix, "bin", "schemathesis"), "run", f"{s.url}/openapi.json", "--checks", "not_a_server_error",
                 "--phases", "examples,coverage,fuzzing", "--max-examples", os.environ.get("HADAL_TEST_EXAMPLES", "40"), "--seed", "1",
                 "--exclude-path-regex", "embed", "--suppress-health-check", "all", "--continue-on-failure", "--warnings", "off",
                 "--no-color", "--generation-database", "none"],
                cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=3000)
            tail = run.stdout[-3000:]
            check(run.returncode == 0, tail)
            cases = re.findall(r"([\d,]+) (?:generated|passed)", run.stdout)
            check(cases and max(int(c.replace(",", "")) for c in cases) > 300, "many cases were made: " + tail)
            print(*re.findall(r".*(?:generated|Operations|seed).*", run.stdout)[-4:], sep="\n")
    sdk.finish()


main()
