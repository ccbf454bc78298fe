"""Run the tests of the emulator's BigQuery against somebody else's: local-bigquery, in a Python and DuckDB of its own.

python scripts/test_foreign_bigquery.py FOLDER

A second opinion on what we believe that BigQuery does. What that server is known not to do stands in GAPS; a test that
fails and is not there fails the run, and so does one that is there and passes. It needs Python 3.13 (FOREIGN_PYTHON,
else python3.13 or one of pyenv's), and is installed into FOLDER, with all of its 700 MB.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchform.emulator import EmulatorServer

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests" / "emulator" / "warehouse"
FILES = ("test_warehouse_rest.py", "test_warehouse_queries.py", "test_warehouse_loads.py", "test_warehouse_read_api.py")
EXTENSIONS = ("ducklake", "icu", "httpfs", "spatial")
DUCKDB = "1.5.5"
SERVER = "local-bigquery==0.3.2"

_WORDS = "refuses as well, in other words"
_OURS = "asks for the emulator's own clock or address"
_SIZES = "counts bytes as it stores them, or none"
GAPS = {
    "test_a_table_as_it_was": "a read session has no snapshot time",
    "test_a_table_expires": _OURS,
    "test_a_view_reads_what_is_there": _WORDS,
    "test_all_types_come_without_loss": "refuses a row of all types by insertAll",
    "test_all_types_go_through_without_loss": "refuses a row of all types by insertAll",
    "test_bytes_of_a_dry_run": _SIZES,
    "test_bytes_that_may_be_billed": "maximumBytesBilled is ignored",
    "test_columns_and_rows_are_chosen": "counts the rows of a session after its restriction",
    "test_columns_are_added_and_stale_etags_refused": _WORDS,
    "test_columns_are_added_when_that_is_allowed": _WORDS,
    "test_csv": "gzipped CSV is not read",
    "test_datasets_in_other_places": "everything is in US",
    "test_ddl": "TRUNCATE leaves numRows as it was",
    "test_dml_counts": _WORDS,
    "test_every_row_is_in_one_stream": "one stream, whatever is asked for",
    "test_exports_to_a_bucket": "integers are numbers in exported JSON; the documentation says text",
    "test_fields_of_records_are_added_at_the_end": "an update says yes, and adds no field to a record",
    "test_fields_of_records_are_added_when_that_is_allowed": "a load adds fields to a record without being allowed to",
    "test_intervals_and_ranges_are_kept_as_bigquery_writes_them": "refuses them in loaded JSON",
    "test_json_lines_by_both_kinds_of_upload[False]": _SIZES,
    "test_json_lines_by_both_kinds_of_upload[True]": _SIZES,
    "test_large_rows_come_in_many_messages": "one message, whatever its size",
    "test_loads_from_a_bucket": _WORDS,
    "test_pages_belong_together_when_the_table_changes": "a later page is one of the table as it is then",
    "test_names_of_struct_fields": "fields of STRUCT(x) have no name",
    "test_parquet": "types of Parquet columns differ",
    "test_refusals": _WORDS,
    "test_rows_that_do_not_fit": _WORDS,
    "test_schemas_are_detected": "text that ends in Z is detected as DATETIME",
    "test_structs_are_assigned_by_place_and_not_converted": "a MERGE takes a struct of other fields than the column's",
    "test_tables_as_they_were": _OURS,
    "test_the_disk_of_this_machine_cannot_be_read": "SQL reads the files of this machine",
    "test_the_port_is_said_over_http": _OURS,
    "test_what_is_not_served_is_said": "it has external tables",
    "test_wrong_sql": "it has DECLARE",
}

COPY = """
import glob, importlib, os, shutil, duckdb
to = os.path.expanduser(f"~/.duckdb/extensions/v{duckdb.__version__}/linux_amd64")
os.makedirs(to, exist_ok=True)
for name in %r:
    module = importlib.import_module(f"duckdb_extension_{name}")
    (found,) = glob.glob(os.path.dirname(module.__file__) + f"/extensions/*/{name}.duckdb_extension")
    shutil.copy(found, to)
"""


def main() -> None:
    home = Path(sys.argv[1]).resolve()
    programs = installed(found_python(), home)
    with (
        tempfile.TemporaryDirectory() as folder,
        EmulatorServer(Path(folder) / "emulator") as buckets,
        running(programs, home, Path(folder) / "data", buckets.url) as (rest, grpc),
    ):
        failed, passed = outcomes(Path(folder) / "report.xml", rest, grpc, buckets.url)
    sys.exit(verdict(failed, passed, set(GAPS)))


def found_python() -> str:
    """An interpreter of Python 3.13 that runs: pyenv puts a python3.13 into the path that may refuse to."""
    told = os.environ.get("FOREIGN_PYTHON")
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = [told] if told else ["python3.13", *map(str, sorted(pyenv.glob("versions/3.13.*/bin/python3.13")))]
    for candidate in candidates:
        asked = [candidate, "-c", "import sys; sys.exit(sys.version_info[:2] != (3, 13))"]
        try:
            if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
                return candidate
        except OSError:
            continue
    sys.exit(f"{SERVER} needs a Python 3.13, and {' and '.join(candidates)} is none: say FOREIGN_PYTHON=/path/to/it")


def installed(python: str, home: Path) -> Path:
    """Where its programs are. Ends the script when it cannot be installed."""
    programs, done = home / "bigquery" / "bin", home / "bigquery.installed"
    wanted = [SERVER, f"duckdb=={DUCKDB}", *(f"duckdb-extension-{name}=={DUCKDB}" for name in EXTENSIONS)]
    if done.exists() and done.read_text(encoding="utf-8") == " ".join(wanted):
        return programs
    home.mkdir(exist_ok=True)
    print(f"installing {SERVER} into {home}", flush=True)  # noqa: T201
    try:
        subprocess.run([python, "-m", "venv", "--clear", str(home / "bigquery")], check=True)
        subprocess.run([str(programs / "python"), "-m", "pip", "install", "--quiet", *wanted], check=True)
        subprocess.run([str(programs / "python"), "-c", COPY % (EXTENSIONS,)], check=True, env=environment(home))
    except (OSError, subprocess.CalledProcessError) as e:
        sys.exit(f"{SERVER} cannot be installed here, so there is no second opinion: {e}")
    done.write_text(" ".join(wanted), encoding="utf-8")
    return programs


def environment(home: Path, **more: str) -> dict[str, str]:
    """A home of its own, so that it leaves nothing in the user's."""
    return {**os.environ, "HOME": str(home), **more}


@contextmanager
def running(programs: Path, home: Path, data: Path, buckets: str) -> Iterator[tuple[str, str]]:
    """The server on two free ports of loopback, once it answers a query: its URL and its gRPC address."""
    port, grpc = free_port(), free_port()
    ports = ["--host", "127.0.0.1", "--port", str(port), "--grpc-port", str(grpc)]
    command = [str(programs / "local-bigquery"), "serve", *ports, "--data-dir", str(data)]
    log = (home / "bigquery.log").open("wb")
    with (
        log,
        subprocess.Popen(
            command, env=environment(home, STORAGE_EMULATOR_HOST=buckets), stdout=log, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            wait_for(f"http://127.0.0.1:{port}", process, home)
            yield f"http://127.0.0.1:{port}", f"127.0.0.1:{grpc}"
        finally:
            process.terminate()
            process.wait(20)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, process: subprocess.Popen[bytes], home: Path) -> None:
    """It says that it runs before it can answer, so ask for something."""
    body = json.dumps({"query": "SELECT 1", "useLegacySql": False}).encode()
    request = urllib.request.Request(
        f"{url}/bigquery/v2/projects/acme/queries", body, {"content-type": "application/json"}
    )
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=10):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    sys.exit(f"{SERVER} does not answer; see {home / 'bigquery.log'}")


def outcomes(report: Path, rest: str, grpc: str, buckets: str) -> tuple[set[str], set[str]]:
    """Names of the tests that failed, and of those that passed."""
    foreign = {"BATCHFORM_FOREIGN_BIGQUERY": f"{rest} {grpc} {buckets}"}
    command = [sys.executable, "-m", "pytest", "-q", "--timeout=300", "--tb=line", f"--junitxml={report}"]
    subprocess.run(
        [*command, *(str(TESTS / name) for name in FILES)], cwd=ROOT, env={**os.environ, **foreign}, check=False
    )
    failed: set[str] = set()
    passed: set[str] = set()
    for case in ET.parse(report).iter("testcase"):
        bad = any(child.tag in ("failure", "error") for child in case)
        (failed if bad else passed).add(str(case.get("name")))
    return failed, passed - failed


def verdict(failed: set[str], passed: set[str], known: set[str]) -> int:
    """Say what is new; 0 when nothing is."""
    for name in sorted(failed - known):
        print(f"fails there, and is no known gap: {name}")  # noqa: T201
    for name in sorted(passed & known):
        print(f"a known gap that is none any more: {name}")  # noqa: T201
    total = len(failed) + len(passed)
    print(f"{len(passed)} of {total} tests agree with {SERVER}; {len(failed & known)} known gaps")  # noqa: T201
    return 1 if failed - known or passed & known or not passed else 0


if __name__ == "__main__":
    main()
