"""How the schema of a table may change: columns, and fields of records, are added at the end, and modes relaxed."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from batchform.emulator.warehouse.catalog import TableRef
from batchform.emulator.warehouse.declined import Declined, invalid
from batchform.emulator.warehouse.fields import Field, Schema


def evolved(ref: TableRef, old: Schema, new: Schema) -> Schema:
    """The schema after an update: what is there stays where it is, whatever the order of `new`. Raises Declined."""
    return _evolved(ref, old, new, "")


def _evolved(ref: TableRef, old: Sequence[Field], new: Sequence[Field], path: str) -> Schema:
    given, kept = {f.name.lower(): f for f in new}, []
    for field in old:
        name, changed = path + field.name, given.pop(field.name.lower(), None)
        if changed is None:
            raise _refused(ref, f"Field {name} is missing in new schema")
        if changed.type != field.type:
            raise _refused(ref, f"Field {name} has changed type from {field.type} to {changed.type}")
        if changed.mode != field.mode and not (field.required and changed.mode == "NULLABLE"):
            raise _refused(ref, f"Field {name} has changed mode from {field.mode} to {changed.mode}")
        fields = _evolved(ref, field.fields, changed.fields, f"{name}.")
        kept.append(replace(changed, name=field.name, fields=fields))
    return (*kept, *added(ref, list(given.values()), path))


def added(ref: TableRef, fields: Sequence[Field], path: str = "") -> Schema:
    """Columns that a table may be given. Raises Declined."""
    for field in fields:
        if field.required:
            raise _refused(ref, f"Cannot add required fields to an existing schema. (field: {path}{field.name})")
    return tuple(fields)


def grown(ref: TableRef, there: Field, loaded: Field, path: str = "") -> Field:
    """A column with what a load adds to its fields, when it may. Raises Declined."""
    known, fields = {f.name.lower(): f for f in loaded.fields}, []
    for field in there.fields:
        new = known.pop(field.name.lower(), None)
        if new is not None and (new.type, new.repeated) != (field.type, field.repeated):
            raise _refused(ref, f"Field {path}{field.name} has changed type from {field.type} to {new.type}")
        fields.append(field if new is None else grown(ref, field, new, f"{path}{field.name}."))
    return replace(there, fields=(*fields, *added(ref, list(known.values()), path)))


def _refused(ref: TableRef, what: str) -> Declined:
    return invalid(f"Provided Schema does not match Table {ref}. {what}")
