"""Uploads in parts, in XML."""

from __future__ import annotations

from typing import Final
from xml.etree import ElementTree

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from batchform.emulator.calls import Call
from batchform.emulator.storage import media, uploads
from batchform.emulator.storage.content import digest_of
from batchform.emulator.storage.refusals import invalid, no_upload
from batchform.emulator.storage.uploads import Upload
from batchform.emulator.storage.wire import check_digest, number, objects_of
from batchform.emulator.storage.xml_objects import (
    attributes,
    conditions,
    element,
    made_headers,
    said_digests,
    xml_answer,
)

_ID: Final = "uploadId"


def start(call: Call) -> Response:
    bucket, name = call.args["bucket"], call.args["object"]
    upload = uploads.start(
        objects_of(call), "parts", bucket, name, attributes(call.request), conditions=conditions(call)
    )
    return xml_answer(
        element("InitiateMultipartUploadResult", ("Bucket", bucket), ("Key", name), ("UploadId", upload), top=True)
    )


async def part(call: Call) -> Response:
    """One part; the same number again replaces it. The answer has its digests."""
    upload = await run_in_threadpool(_upload, call)
    part_number = number(call.request.query_params, "partNumber") or 0
    with uploads.part(call.store, upload.id, part_number) as out:
        async for piece in call.request.stream():
            out.write(piece)
        found = out.digest()
        check_digest(found, *said_digests(call.request))
    shown = f"crc32c={found.crc32c},md5={found.md5}"
    return Response(b"", 200, {"etag": f'"{uploads.hex_md5(found)}"', "x-goog-hash": shown})


def complete(call: Call) -> Response:
    """Make the object. Asked again, the answer is the same."""
    upload, objects = _upload(call), objects_of(call)
    made = upload.result or uploads.join(objects, upload, _listed(call.body))
    answer = xml_answer(
        element(
            "CompleteMultipartUploadResult",
            ("Location", f"{call.base_url}/{made.bucket}/{made.name}"),
            ("Bucket", made.bucket),
            ("Key", made.name),
            ("ETag", f'"{media.xml_tag(made)}"'),
            top=True,
        )
    )
    answer.headers.update({name: value for name, value in made_headers(made).items() if name.startswith("x-goog-")})
    return answer


def _listed(body: bytes) -> list[tuple[int, str]]:
    """Numbers and tags of the parts that a client lists."""
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError as e:
        raise invalid(f"The list of parts is no XML: {e}.", code="MalformedCompleteMultipartUploadRequest") from e
    found = []
    for entry in root.iter():
        if _local(entry) == "Part":
            said = {_local(child): (child.text or "").strip() for child in entry}
            part_number = number(said, "PartNumber")
            if part_number is None:
                raise invalid("A part has no PartNumber.", code="MalformedCompleteMultipartUploadRequest")
            found.append((part_number, said.get("ETag", "").strip('"')))
    return found


def _local(entry: ElementTree.Element) -> str:
    return entry.tag.rpartition("}")[2]


def list_(call: Call) -> Response:
    """The parts that are there."""
    upload = _upload(call)
    entries = []
    for part_number, path in uploads.parts(call.store, upload.id):
        tag = f'"{uploads.hex_md5(digest_of(path))}"'
        size = path.stat().st_size
        entries.append(element("Part", ("PartNumber", part_number), ("ETag", tag), ("Size", size)))
    head = (("Bucket", upload.bucket), ("Key", upload.name), ("UploadId", upload.id), ("IsTruncated", "false"))
    return xml_answer(element("ListPartsResult", *head, *entries, top=True))


def abort(call: Call) -> Response:
    uploads.forget(call.store, _upload(call).id)
    return Response(status_code=204)


def _upload(call: Call) -> Upload:
    """The upload that the call names, which must be one of this object in parts."""
    found = uploads.find(call.store, call.request.query_params[_ID])
    if (found.kind, found.bucket, found.name) != ("parts", call.args["bucket"], call.args["object"]):
        raise no_upload()
    return found
