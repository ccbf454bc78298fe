"""Models: get, list, and the synchronous calls."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from batchform.emulator import answers, execute, grammar, models, rules
from batchform.emulator.calls import Call, Route, json_response
from batchform.emulator.models import Model
from batchform.emulator.refusal import Refusal, bad_field


def get(call: Call) -> Response:
    return json_response(models.find(call.args["model"]).resource())


def list_(call: Call) -> Response:
    size, token = call.paging(default=50)
    if token and not token.isdecimal():
        raise bad_field("Invalid page token.", "page_token")
    start = int(token or 0)
    every = list(models.MODELS.values())
    shown: dict[str, Any] = {"models": [m.resource() for m in every[start : start + size]]}
    return json_response({**shown, "nextPageToken": str(start + size)} if start + size < len(every) else shown)


def generate(call: Call) -> Response:
    """One request, answered and charged at once."""
    model = models.find(call.args["model"], method=models.GENERATE)
    request = call.message("GenerateContentRequest")
    rules.check(request, model)
    return answered(call, model, request)


def answered(call: Call, model: Model, request: dict[str, Any]) -> Response:
    """The answer to a request that was checked, once it is on the bill."""
    return json_response(outcome_of(call, model, request).response)


def outcome_of(call: Call, model: Model, request: dict[str, Any]) -> answers.Outcome:
    """What comes of a request that was checked, once it is on the bill. Raises its error."""
    store = call.store
    recorded = False
    while not recorded:
        runner = execute.Runner(store, job=None, account=call.account, model=model.id, at=store.now())
        outcome = runner.run(request, None, call.fate.of_row(None))
        with store.writing() as db:
            recorded = runner.record(db)
    if outcome.error is not None:
        raise outcome.error
    return outcome


def count(call: Call) -> Response:
    model = models.find(call.args["model"], method=models.COUNT)
    asked = call.message("CountTokens")
    request = _to_count(asked, model)
    tokens = answers.count_tokens(request)
    return json_response({"totalTokens": tokens, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens}]})


def _to_count(asked: dict[str, Any], model: Model) -> dict[str, Any]:
    """The request whose tokens are asked for. Raises Refusal 400."""
    whole, contents = asked.get("generateContentRequest"), asked.get("contents")
    if whole is not None and contents:
        raise bad_field("CountTokens takes either generate_content_request or contents, not both.", "contents")
    if whole is None and not contents:
        raise Refusal(400, "CountTokens requires generate_content_request or contents to be set.")
    if whole is not None:
        if "model" not in whole:
            field = "generate_content_request.model"
            raise bad_field(f"* CountTokensRequest.{field}: model is not specified", field)
        rules.check(whole, model)
        return dict(whole)
    if not model.embeds:
        rules.check({"contents": contents}, model)
    return {"contents": contents}


def embed(call: Call) -> Response:
    """Texts, embedded and charged at once: one of `embedContent`, several of `batchEmbedContents`."""
    model = models.find(call.args["model"], method=call.args["method"])
    several = call.args["method"] == models.EMBED_SEVERAL
    requests = call.message("EmbedContents")["requests"] if several else [call.message(grammar.EMBED)]
    found = []
    for request in requests:
        rules.check(request, model)
        found.append(outcome_of(call, model, request).response or {})
    answers_ = [response["embedding"] for response in found]
    return json_response({"embeddings": answers_} if several else {"embedding": answers_[0]})


_MODEL: Final = r"/V/models/(?P<model>[^/:]+)"

ROUTES: Final = (
    Route("models.get", "GET", _MODEL, get),
    Route("models.list", "GET", r"/V/models", list_),
    Route("models.generate_content", "POST", rf"{_MODEL}:generateContent", generate),
    Route("models.embed_content", "POST", rf"{_MODEL}:(?P<method>{models.EMBED}|{models.EMBED_SEVERAL})", embed),
    Route("models.count_tokens", "POST", rf"{_MODEL}:countTokens", count),
)
