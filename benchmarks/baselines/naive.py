"""The baseline: what a person writes first. csv.DictReader → Jinja → json.dumps → one JSONL.

python benchmarks/baselines/naive.py PROJECT rows.csv out.jsonl
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import jinja2


def main() -> None:
    project, rows, out = (Path(arg) for arg in sys.argv[1:])
    template = jinja2.Template((project / "templates/triage.j2").read_text(encoding="utf-8"))
    system = (project / "templates/triage.system.j2").read_text(encoding="utf-8")
    config = {
        "temperature": 0,
        "maxOutputTokens": 256,
        "responseMimeType": "application/json",
        "responseSchema": json.loads((project / "schemas/triage.json").read_text(encoding="utf-8")),
    }
    with rows.open(encoding="utf-8", newline="") as source, out.open("w", encoding="utf-8") as target:
        for row in csv.DictReader(source):
            request = {
                "contents": [{"role": "user", "parts": [{"text": template.render(row)}]}],
                "systemInstruction": {"parts": [{"text": system}]},
                "generationConfig": config,
            }
            target.write(json.dumps({"key": row["ticket_id"], "request": request}) + "\n")


if __name__ == "__main__":
    main()
