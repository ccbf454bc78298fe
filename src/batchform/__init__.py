"""batchform: Terraform for LLM batch jobs. See docs/design.md for its words and rules.

`from batchform import Project` plans, applies and reads: see docs/python.md. What is not asked for is not imported.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchform.api.project import Project
    from batchform.api.results import Results
    from batchform.api.values import Delivered, Outcome, Plan, PlannedSpec, SpecOutcome, Validation
    from batchform.errors import BatchformError

__version__ = "0.1.0"

__all__ = [
    "BatchformError",
    "Delivered",
    "Outcome",
    "Plan",
    "PlannedSpec",
    "Project",
    "Results",
    "SpecOutcome",
    "Validation",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = {"Project": "api.project", "Results": "api.results", "BatchformError": "errors"}.get(name, "api.values")
    return getattr(import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
