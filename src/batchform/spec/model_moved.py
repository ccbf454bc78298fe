"""What a spec was before: its earlier names, and the key that its rows had."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from batchform.spec.fields import Name, Strict


class Removed(Strict):
    """A spec that the project has no longer, and whose rows are managed no more. What was delivered stays."""

    spec: Name = Field(description="Its name.")
    reason: str = Field(min_length=1, description="Why, for those who review it.")


class Moved(Strict):
    """Rows that are recorded under an earlier name of the spec, or an earlier key, go on under the present one. They
    are not sent again; and nothing happens when there are none, or none any more."""

    from_: Name | Annotated[list[Name], Field(min_length=1)] | None = Field(
        None, alias="from", description="Earlier name of the spec, or several: the one that has recorded rows counts."
    )
    key: list[str] | str | None = Field(
        None, description="What `idempotency.key` was before: columns, or a Jinja expression."
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The earlier names, in the order as written."""
        return () if self.from_ is None else (self.from_,) if isinstance(self.from_, str) else tuple(self.from_)
