"""What `import` cannot mean: nothing, files and jobs at once, and names that no job has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from batchform.errors import Diagnostic
from batchform.spec.model import Spec
from batchform.spec.wording import shown
from batchform.spec.yaml_source import Document

GEMINI_JOB: Final = re.compile(r"batches/[A-Za-z0-9_-]+")
VERTEX_JOB: Final = re.compile(r"(?P<place>projects/[^/\s]+/locations/[^/\s]+)/batchPredictionJobs/[A-Za-z0-9_-]+")


def lint_imports(document: Document, spec: Spec) -> Iterator[Diagnostic]:
    """Complaints about one spec's `import`."""
    for i, asked in enumerate(spec.import_):
        if (asked.results is None) != bool(asked.jobs):
            both = "both `results` and `job`" if asked.jobs else "neither `results` nor `job`"
            hint = "Name result files, or a job at the service; each further one in an entry of its own."
            yield document.diagnostic("import-what", f"the import names {both}", ("import", i), hint=hint)
        for n, name in enumerate(asked.jobs):
            if not (GEMINI_JOB.fullmatch(name) or VERTEX_JOB.fullmatch(name)):
                at = ("import", i, "job") if isinstance(asked.job, str) else ("import", i, "job", n)
                hint = (
                    "Write it as the service does: batches/ID at the Gemini API, "
                    "projects/PROJECT/locations/LOCATION/batchPredictionJobs/NUMBER at Vertex AI."
                )
                yield document.diagnostic("import-what", f"`{shown(name)}` is not the name of a job", at, hint=hint)
