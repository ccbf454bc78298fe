"""The ledger in a bucket, with a fault at each of its calls and a writer killed at each: part of `make prove`.

    python tests/prove/storage_run.py [--every N]

Runs tests/ledger/test_ledger_storage.py at every call. Its last line is a JSON object of counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="each n-th call only")
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", f"--junitxml={report}", "-o",
             "junit_family=xunit1", "tests/ledger/test_ledger_storage.py"],
            cwd=ROOT, env={**os.environ, "BATCHFORM_STORAGE_FAULTS_EVERY": str(given.every)}, check=False,
        )  # fmt: skip
        counts: Counter[str] = Counter()
        for case in ElementTree.parse(report).iter("testcase"):
            counts["tests"] += 1
            counts["failures"] += case.find("failure") is not None or case.find("error") is not None
            counts.update({str(p.get("name")): int(p.get("value", 0)) for p in case.iter("property")})
    print(json.dumps(counts))  # noqa: T201
    return 1 if done.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
