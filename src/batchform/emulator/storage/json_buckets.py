"""Buckets in JSON."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from batchform.emulator.calls import Call, json_response
from batchform.emulator.clock import rfc3339
from batchform.emulator.storage.records import Bucket
from batchform.emulator.storage.refusals import invalid, unserved
from batchform.emulator.storage.wire import conditions, etag, json_body, objects_of

_REGIONAL: Final = "region"
_MULTI_REGIONS: Final = ("US", "EU", "ASIA")


def insert(call: Call) -> Response:
    body = json_body(call.body)
    name = body.get("name")
    if not isinstance(name, str):
        raise invalid("Required parameter: name")
    _refuse_unserved(body)
    made = objects_of(call).create_bucket(
        name,
        location=str(body.get("location") or "US"),
        storage_class=str(body.get("storageClass") or "STANDARD"),
        versioning=_versioning(body) or False,
        labels=_labels(body),
    )
    return json_response(resource(made, call.base_url))


def get(call: Call) -> Response:
    found = objects_of(call).bucket(call.args["bucket"])
    conditions(call).check(found, reading=True)
    return json_response(resource(found, call.base_url))


def list_(call: Call) -> Response:
    found = objects_of(call).buckets(call.request.query_params.get("prefix", ""))
    shown: dict[str, Any] = {"kind": "storage#buckets"}
    return json_response({**shown, "items": [resource(bucket, call.base_url) for bucket in found]} if found else shown)


def patch(call: Call) -> Response:
    """patch and update: what is said is changed, what is not said stays."""
    body = json_body(call.body)
    _refuse_unserved(body)
    changed = objects_of(call).update_bucket(
        call.args["bucket"], versioning=_versioning(body), labels=_labels(body), conditions=conditions(call)
    )
    return json_response(resource(changed, call.base_url))


def delete(call: Call) -> Response:
    objects_of(call).delete_bucket(call.args["bucket"], conditions=conditions(call))
    return Response(status_code=204)


def layout(call: Call) -> Response:
    """What clients ask to learn whether a bucket has folders: none has."""
    found = objects_of(call).bucket(call.args["bucket"])
    shown = {"kind": "storage#storageLayout", "bucket": found.name, **_place(found)}
    return json_response({**shown, "hierarchicalNamespace": {"enabled": False}})


def permissions(call: Call) -> Response:
    """Everybody may do everything."""
    objects_of(call).bucket(call.args["bucket"])
    asked = call.request.query_params.getlist("permissions")
    return json_response({"kind": "storage#testIamPermissionsResponse", "permissions": asked})


def resource(bucket: Bucket, base_url: str) -> dict[str, Any]:
    """A bucket as JSON shows it."""
    return {
        "kind": "storage#bucket",
        "id": bucket.name,
        "name": bucket.name,
        "selfLink": f"{base_url}/storage/v1/b/{bucket.name}",
        "projectNumber": "0",
        "metageneration": str(bucket.metageneration),
        **_place(bucket),
        "storageClass": bucket.storage_class,
        "versioning": {"enabled": bucket.versioning},
        "labels": bucket.labels,
        "softDeletePolicy": {"retentionDurationSeconds": "0"},
        "iamConfiguration": {
            "uniformBucketLevelAccess": {"enabled": True},
            "publicAccessPrevention": "inherited",
        },
        "etag": etag(bucket),
        "timeCreated": rfc3339(bucket.created_at),
        "updated": rfc3339(bucket.updated_at),
    }


def _place(bucket: Bucket) -> dict[str, str]:
    kind = "multi-region" if bucket.location in _MULTI_REGIONS else _REGIONAL
    return {"location": bucket.location, "locationType": kind}


def _versioning(body: dict[str, Any]) -> bool | None:
    said = body.get("versioning")
    return None if not isinstance(said, dict) else bool(said.get("enabled"))


def _labels(body: dict[str, Any]) -> dict[str, str] | None:
    said = body.get("labels")
    if said is None:
        return None
    if not isinstance(said, dict):
        raise invalid("labels must be an object of texts.")
    return {str(name): str(value) for name, value in said.items() if value is not None}


def _refuse_unserved(body: dict[str, Any]) -> None:
    """What would change what happens to objects is refused rather than passed over."""
    soft = body.get("softDeletePolicy")
    if isinstance(soft, dict) and int(soft.get("retentionDurationSeconds") or 0):
        raise unserved("The emulator keeps no soft-deleted objects: softDeletePolicy must be of 0 seconds.")
    lifecycle = body.get("lifecycle")
    kept = {
        "lifecycle": isinstance(lifecycle, dict) and lifecycle.get("rule"),
        "retentionPolicy": body.get("retentionPolicy"),
        "hierarchicalNamespace": (body.get("hierarchicalNamespace") or {}).get("enabled"),
    }
    for name, value in kept.items():
        if value:
            raise unserved(f"The emulator does not serve {name} of buckets.")
