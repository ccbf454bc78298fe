"""Result files of jobs that were made elsewhere, read as answers: each line by the request that it answers."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from batchform.canon import RequestHasher, canonical_json, digest_of, file_digest, short
from batchform.plan.importing import Importing
from batchform.rows.sql import literal
from batchform.run.answers import write_answers
from batchform.run.archive import pack
from batchform.run.classify import ANSWERED, key_of
from batchform.run.parse import decode_line, parse_file, parser_for
from batchform.spec.generation import camel
from batchform.spec.realm import realm_of
from batchform.spec.resolved import ResolvedSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from duckdb import DuckDBPyConnection

_OWN_NAMES: Final = frozenset({
    "properties", "args", "response", "labels", "responseSchema", "responseJsonSchema", "parameters",
    "parametersJsonSchema",
})  # fmt: skip
"""Below these, names are the user's own, or JSON Schema's."""
_EXAMPLES: Final = 3
_VERSION: Final = r"(-[0-9][0-9-]*)?"
"""What the service adds to a model's name, as in -001; other words after it make another model's name."""


def canonical_request(request: dict[str, Any]) -> bytes:
    """A request as batchform would have written it: camelCase names, the roles that the API takes for granted, no
    nulls; labels do not count."""
    made = {k: v for k, v in _camel(request).items() if k != "labels"}
    contents = made.get("contents")
    if isinstance(contents, dict):
        contents = [contents]
    if isinstance(contents, list):
        made["contents"] = [{"role": "user", **c} if isinstance(c, dict) else c for c in contents]
    system = made.get("systemInstruction")
    if isinstance(system, dict):
        made["systemInstruction"] = {k: v for k, v in system.items() if k != "role"}
    return canonical_json(made)


def _camel(value: Any) -> Any:
    if isinstance(value, dict):
        named = {camel(str(k)): v for k, v in value.items() if v is not None}
        return {k: v if k in _OWN_NAMES else _camel(v) for k, v in named.items()}
    return [_camel(v) for v in value] if isinstance(value, list) else value


def import_tag(spec: ResolvedSpec, results: Sequence[Path], requests: Sequence[Path], *, job: str = "") -> str:
    """What the ledger calls these results: the same for the same content. job: that has them at the service."""
    content: list[Any] = [[file_digest(p) for p in files] for files in (results, requests)]
    content += [spec.model, realm_of(spec.backend), *([job] if job else ())]
    return f"import-{spec.name}-{short(digest_of('import', content))}"


def read_import(
    spec: ResolvedSpec,
    tag: str,
    described: str,
    results: Sequence[Path],
    requests: Sequence[Path],
    *,
    connect: Callable[[], DuckDBPyConnection],
    folder: Path,
) -> Importing:
    """Read result files into an archive and its answers, in `folder`. Nothing is recorded."""
    own = folder / "imports"
    own.mkdir(parents=True, exist_ok=True)
    raw, prints, readings = (own / f"{tag}{end}" for end in (".jsonl", ".prints.parquet", ".readings.parquet"))
    archive, answers = own / f"{tag}.jsonl.gz", own / f"{tag}.answers.parquet"
    skipped, examples = _sort_out(spec, results, requests, raw, prints)
    pack(raw, archive)
    parsed = parse_file(raw, readings, parser=parser_for(spec.output_format, spec.output_schema))
    with closing(connect()) as con:
        asked = f"(SELECT CAST(key_hash AS UUID) AS key_hash, request_fp FROM read_parquet({literal(str(prints))}))"
        write_answers(
            con, readings, answers, tag=tag, parse_digest=spec.parse_digest, requests=asked, known=asked,
            moved="(SELECT NULL::UUID AS key_hash WHERE false)", parsed=parsed,
        )  # fmt: skip
        held = dict(
            con.execute(f"SELECT class, count(*) FROM read_parquet({literal(str(answers))}) GROUP BY 1").fetchall()
        )
    for path in (raw, prints, readings):
        path.unlink()
    answered = int(held.pop(ANSWERED, 0))
    skipped.update({f"no answer: {name}": int(count) for name, count in held.items()})
    return Importing(
        spec=spec.name, tag=tag, source=described, lines=parsed.lines + sum(skipped.values()) - sum(held.values()),
        answers=answered, skipped=dict(skipped), examples=tuple(examples), parse_digest=spec.parse_digest,
        archive=f"imports/{archive.name}", parsed=f"imports/{answers.name}",
    )  # fmt: skip


def _sort_out(
    spec: ResolvedSpec, results: Sequence[Path], requests: Sequence[Path], raw: Path, prints: Path
) -> tuple[Counter[str], list[str]]:
    """Write the lines whose request is known, under keys made of it, and which request each key stands for."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    realm = realm_of(spec.backend)
    fingerprint = RequestHasher(model=spec.model, realm=realm).fingerprint
    sent = _requests(requests, fingerprint)
    skipped: Counter[str] = Counter()
    examples: list[str] = []
    seen: dict[str, bytes] = {}
    with raw.open("wb") as out:
        for place, line in _lines(results):
            value = decode_line(line)
            fp, why = _asked(value, sent, fingerprint)
            why = why or _of_another(value, spec.model, realm)
            if fp is None or why:
                skipped[why] += 1
                if len(examples) < _EXAMPLES:
                    examples.append(f"{place} ({why})")
                continue
            key = fp[:16].hex()
            seen[key] = fp
            kept = {k: v for k, v in value.items() if k not in ("key", "metadata", "request")}
            out.write(msgspec.json.encode({"key": f"k{key}", **kept}) + b"\n")
    columns = {"key_hash": pa.array(list(seen), pa.string()), "request_fp": pa.array(list(seen.values()), pa.binary())}
    pq.write_table(pa.table(columns), prints)
    return skipped, examples


def _requests(files: Sequence[Path], fingerprint: Callable[[bytes], bytes]) -> dict[str, bytes | None]:
    """Fingerprint of the request that each key was given to; None for a key of several, as two jobs that both count
    their rows from one have them."""
    sent: dict[str, bytes | None] = {}
    for _, line in _lines(files):
        value = decode_line(line)
        key = _key(value) if isinstance(value, dict) else None
        if key and isinstance(value.get("request"), dict):
            fp = fingerprint(canonical_request(value["request"]))
            sent[key] = fp if sent.setdefault(key, fp) == fp else None
    return sent


def _key(line: dict[str, Any]) -> str | None:
    """The key of a line; of inline requests of somebody else, all of its metadata is one."""
    said = line.get("metadata")
    return key_of(line) or (canonical_json(said).decode() if isinstance(said, dict) and said else None)


def _lines(files: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    """Each line with its place."""
    for path in files:
        with path.open("rb") as source:
            for number, line in enumerate(source, start=1):
                if line.strip():
                    yield f"{path.name}:{number}", line


def _asked(
    value: Any, sent: dict[str, bytes | None], fingerprint: Callable[[bytes], bytes]
) -> tuple[bytes | None, str]:
    """The fingerprint of the request that a line answers, or why that is not known."""
    if not isinstance(value, dict):
        return None, "no JSON object"
    request = value.get("request")
    if isinstance(request, str):
        request = decode_line(request.encode())
    if isinstance(request, dict):
        return fingerprint(canonical_request(request)), ""
    key = _key(value)
    if key is None:
        return None, "neither a request nor a key"
    if key not in sent:
        return None, "a key that `requests` does not have"
    return sent[key], "" if sent[key] else "a key that `requests` has for several requests"


def is_model(version: str, model: str) -> bool:
    """Whether a bare name is that of a model, or of a version of it."""
    return re.fullmatch(re.escape(model.rpartition("/")[2]) + _VERSION, version) is not None


def _of_another(value: dict[str, Any], model: str, realm: str) -> str:
    """Why an answer cannot be this spec's: another model gave it, or it is made up."""
    response = value.get("response")
    version = str(response.get("modelVersion") or "") if isinstance(response, dict) else ""
    made_up = version.partition("-")[0] == "emulator"
    if version and made_up != (realm == "emulator"):
        return "answers of the emulator" if realm == "google" else "answers of Google, for a spec of the emulator"
    bare = version.rpartition("/")[2]
    if bare and realm == "google" and not is_model(bare, model):
        return f"answers of {json.dumps(bare)[1:-1]}"
    return ""
