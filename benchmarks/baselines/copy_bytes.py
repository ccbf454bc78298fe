"""The floor of anything that ends on disk: a plain copy of the same files, written and synced.

python benchmarks/baselines/copy_bytes.py TO @LIST

LIST: a file with the name of a file in each line.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_CHUNK = 1 << 20


def main() -> None:
    to = Path(sys.argv[1])
    to.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(Path(sys.argv[2][1:]).read_text(encoding="utf-8").splitlines()):
        with Path(name).open("rb") as source, (to / str(index)).open("wb") as target:
            while chunk := source.read(_CHUNK):
                target.write(chunk)
            target.flush()
            os.fsync(target.fileno())


if __name__ == "__main__":
    main()
