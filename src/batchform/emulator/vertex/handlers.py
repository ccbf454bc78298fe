"""What calls of Vertex AI do: batchPredictionJobs, and a model's synchronous calls."""

from __future__ import annotations

import secrets
from typing import Any, Final

from starlette.responses import Response

from batchform.emulator import answers, models, routes_models
from batchform.emulator.calls import Call, json_response
from batchform.emulator.fate import ORDINARY
from batchform.emulator.vertex import bodies, filters, jobs, rows

DEFAULT_PAGE: Final = 100


def create(call: Call) -> Response:
    body = {name: value for name, value in call.message("VertexJob").items() if name not in _OUTPUT_ONLY}
    model = bodies.check(body)
    job = jobs.create(call.store, call.account, model, body, seconds=call.emulator.job_seconds, fate=call.fate)
    return json_response(jobs.resource(job, call.store.now()))


def get(call: Call) -> Response:
    return json_response(jobs.resource(jobs.find(call.store, call.account, call.args["id"]), call.store.now()))


def list_(call: Call) -> Response:
    size, token = call.paging(default=DEFAULT_PAGE)
    test = filters.parse(call.request.query_params.get("filter", ""))
    found, following = jobs.page(call.store, call.account, test, size=size, token=token)
    shown: dict[str, Any] = {"batchPredictionJobs": found} if found else {}
    return json_response({**shown, "nextPageToken": following} if following else shown)


def cancel(call: Call) -> Response:
    share = None if call.fate is ORDINARY else call.fate.share
    jobs.cancel(call.store, call.account, call.args["id"], share=share)
    return json_response({})


def delete(call: Call) -> Response:
    jobs.delete(call.store, call.account, call.args["id"])
    kind = "type.googleapis.com/google"
    operation = {
        "name": f"{call.account}/operations/{secrets.randbelow(9 * 10**18) + 10**18}",
        "metadata": {"@type": f"{kind}.cloud.aiplatform.v1beta1.DeleteOperationMetadata"},
        "done": True,
        "response": {"@type": f"{kind}.protobuf.Empty"},
    }
    return json_response(operation)


def generate(call: Call) -> Response:
    """One request, answered and charged at once."""
    model = bodies.find_model(f"publishers/google/models/{call.args['model']}", method=models.GENERATE)
    return routes_models.answered(call, model, rows.read_request(call.body, model))


def embed(call: Call) -> Response:
    """One text, embedded and charged at once."""
    model = bodies.find_model(f"publishers/google/models/{call.args['model']}", method=models.EMBED)
    outcome = routes_models.outcome_of(call, model, rows.read_request(call.body, model))
    return json_response({"embedding": (outcome.response or {})["embedding"]})


_COUNTED: Final = ("contents", "systemInstruction", "tools", "generationConfig")


def count(call: Call) -> Response:
    model = bodies.find_model(f"publishers/google/models/{call.args['model']}", method=models.COUNT)
    asked = call.message("VertexCountTokens")
    request: dict[str, Any] = {name: asked[name] for name in _COUNTED if name in asked}
    rows.check(request, model)
    tokens = answers.count_tokens(request)
    characters = sum(len(part.get("text", "")) for c in request["contents"] for part in c["parts"])
    details = [{"modality": "TEXT", "tokenCount": tokens}]
    return json_response({"totalTokens": tokens, "totalBillableCharacters": characters, "promptTokensDetails": details})


_OUTPUT_ONLY: Final = ("name", "state", "createTime", "updateTime")
