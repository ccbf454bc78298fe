"""The long run of random histories, part of `make prove`. Its last line is a JSON object of counts.

    python tests/prove/history_run.py [--seconds N] [--histories N] [--steps N] [--lanes N] [--seed N] [--cloud NAME]
                                         [--shrink]

A history that breaks a law ends its lane: hypothesis shows the history, and the exit code is 1. The same seed begins
with the same histories; `--shrink` also looks for the shortest one that fails.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter

from history_machine import Histories
from history_world import CLOUDS
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.errors import HypothesisWarning
from hypothesis.stateful import run_state_machine_as_test

_AT_ONCE = 10  # histories between two looks at the time
_SEEDS = 1_000_000  # of one lane


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=900.0, help="no new histories after this long")
    parser.add_argument("--histories", type=int, default=10_000, help="no new ones after so many in a lane")
    parser.add_argument("--steps", type=int, default=15, help="of a history, at most")
    parser.add_argument("--lanes", type=int, default=2, help="processes")
    parser.add_argument("--seed", type=int, default=1, help="of the first lane; the others follow")
    parser.add_argument("--cloud", choices=CLOUDS, default="gemini", help="whose API, and where inputs lie")
    parser.add_argument("--shrink", action="store_true", help="look for the shortest history that fails; takes long")
    given = parser.parse_args()
    if given.lanes > 1:
        return lanes(given)
    code = lane(given)
    say(json.dumps(Histories.totals))
    return code


def lanes(given: argparse.Namespace) -> int:
    """Run each lane in a process of its own; say what they counted together."""
    fixed = [f"--{name}={getattr(given, name)}" for name in ("seconds", "histories", "steps", "cloud")]
    fixed += ["--lanes=1", *(["--shrink"] if given.shrink else [])]
    started = [
        subprocess.Popen(
            [sys.executable, __file__, *fixed, f"--seed={given.seed + number}"], stdout=subprocess.PIPE, text=True
        )
        for number in range(given.lanes)
    ]
    total: Counter[str] = Counter()
    for process in started:
        out, _ = process.communicate()
        *said, counts = out.rstrip("\n").rpartition("\n")
        say("".join(said).rstrip("\n"))
        total.update(json.loads(counts))
    failed = sum(process.returncode != 0 for process in started)
    faults = {name: n for name, n in total.items() if name.startswith("fault ")}
    say(f"Faults that happened: {', '.join(f'{name[6:]} {n}' for name, n in sorted(faults.items()))}")
    say(json.dumps({name: n for name, n in total.items() if name not in faults} | {"failures": failed}))
    return 1 if failed else 0


def lane(given: argparse.Namespace) -> int:
    """Run histories in this process. 1 when one of them broke a law."""
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL", "BATCHFORM_ENV"):
        os.environ.pop(name, None)
    os.environ["BATCHFORM_DEBUG"] = "1"
    warnings.simplefilter("ignore", HypothesisWarning)
    until, number = time.monotonic() + given.seconds, given.seed * _SEEDS
    phases = [Phase.generate, *([Phase.shrink] if given.shrink else [])]
    while time.monotonic() < until and Histories.totals["histories"] < given.histories:
        try:
            some(number, given.cloud, settings(max_examples=_AT_ONCE, stateful_step_count=given.steps, phases=phases))
        except Exception:  # noqa: BLE001  (whatever it is, it was found by the histories)
            say(traceback.format_exc())
            return 1
        number += 1
        print({n: Histories.totals[n] for n in ("histories", "steps", "faults")}, file=sys.stderr, flush=True)  # noqa: T201
    return 0


def some(number: int, cloud: str, chosen: settings) -> None:
    """A few histories of a seed."""
    machine = seed(number)(type(f"Histories{number}", (Histories,), {"cloud": cloud}))
    quiet = settings(
        chosen, deadline=None, database=None, print_blob=True, report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    run_state_machine_as_test(machine, settings=quiet)  # type: ignore[no-untyped-call]


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
