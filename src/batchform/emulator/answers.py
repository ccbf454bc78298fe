"""Deterministic answers: what a request gets depends on nothing but the request.

The one exception is asked for: a marker such as `x1` looks at how often the same request ran.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Struct

from batchform.emulator import markers, pictures, schemas, tools
from batchform.emulator.draw import Draw
from batchform.emulator.refusal import Refusal

CHARS_PER_TOKEN: Final = 4
MEDIA_TOKENS: Final = 258
THOUGHT_TOKENS: Final = 16
_ECHO_CHARS: Final = 400


class Outcome(Struct, frozen=True):
    """What became of one request: a response or an error, what was charged, and what happens to its result line.

    effect: "", or one of the markers `missing`, `duplicate`, `unknown_key`. Errors are not charged.
    """

    response: dict[str, Any] | None
    error: Refusal | None
    prompt_tokens: int
    output_tokens: int
    effect: str = ""


class Prompt(Struct, frozen=True):
    """What the emulator looks at in a request. question: text of the last user turn; text: all of it."""

    question: str
    text: str
    tokens: int

    @classmethod
    def of(cls, request: dict[str, Any]) -> Prompt:
        contents = request.get("contents", ())
        texts: list[str] = []
        media, question = 0, ""
        system = request.get("systemInstruction")
        for content in (system, *contents) if system else contents:
            said = []
            for part in content.get("parts", ()):
                if "text" in part:
                    said.append(part["text"])
                elif "fileData" in part or "inlineData" in part:
                    media += 1
            text = "\n".join(said)
            texts.append(text)
            if content is not system and content.get("role", "user") == "user":
                question = text
        whole = "\n".join(texts)
        return cls(markers.without(question), whole, _tokens(whole) + media * MEDIA_TOKENS)


def answer(
    request: dict[str, Any],
    *,
    model: str,
    digest: bytes,
    attempt: Callable[[], int],
) -> Outcome:
    """The outcome of a normalised request, whose files can be read. attempt is only asked when the request needs it."""
    prompt = Prompt.of(request)
    marker = markers.asked(prompt.text, attempt)
    name = marker.name if marker else ""
    if marker and name == markers.ERROR:
        message = marker.wrong or f"The emulator was asked for this error ({marker.status})."
        return Outcome(None, Refusal(marker.status, message), 0, 0)
    usage = {"promptTokenCount": prompt.tokens}
    response: dict[str, Any] = {}
    if name == markers.BLOCKED:
        response["promptFeedback"] = {"blockReason": "SAFETY"}
    else:
        response["candidates"] = _candidates(request, prompt, name, usage)
    output = usage.get("candidatesTokenCount", 0) + usage.get("thoughtsTokenCount", 0)
    usage["totalTokenCount"] = prompt.tokens + output
    response["usageMetadata"] = {
        **usage,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt.tokens}],
    }
    response["modelVersion"] = f"emulator-{model}"
    response["responseId"] = base64.urlsafe_b64encode(digest[:12]).decode()
    effect = name if name in (markers.MISSING, markers.DUPLICATE, markers.UNKNOWN_KEY) else ""
    return Outcome(response, None, prompt.tokens, output, effect)


def count_tokens(request: dict[str, Any]) -> int:
    """Tokens of a normalised request, as the emulator counts them: four characters make one."""
    return Prompt.of(request).tokens


def _candidates(request: dict[str, Any], prompt: Prompt, name: str, usage: dict[str, int]) -> list[dict[str, Any]]:
    config, draw = request.get("generationConfig", {}), Draw(prompt.question)
    call = tools.called(request, prompt.question) if name not in (markers.EMPTY, markers.INVALID_JSON) else None
    ran = tools.parts(request, prompt.question) if name != markers.EMPTY else []
    thoughts = _thinks(config.get("thinkingConfig", {}))
    limit = config.get("maxOutputTokens")
    out, spent = [], 0
    for index in range(config.get("candidateCount", 1)):
        text = "" if call or name == markers.EMPTY else _text(config, prompt, draw)
        reason = "STOP"
        if name == markers.INVALID_JSON:
            text = text[:-1] if text[:1] in ("{", "[", '"') else '{"unfinished": '
        room = None if limit is None else limit - thoughts
        if name == markers.MAX_TOKENS:
            room = max(_tokens(text) // 2, 0)
        if room is not None and room < _tokens(text):
            text, reason = text[: max(room, 0) * CHARS_PER_TOKEN], "MAX_TOKENS"
        before = [*ran, *([{"functionCall": call}] if call else ())]
        spent += _tokens(text) + (_tokens(msgspec.json.encode(before).decode()) if before else 0)
        found = tools.metadata(request, prompt.question, text)
        content = _content(config, before, text, reason)
        spent += pictures.TOKENS * any("inlineData" in part for part in content.get("parts", ()))
        out.append({"content": content, "finishReason": reason, "index": index, **found})
    usage["candidatesTokenCount"] = spent
    if thoughts:
        usage["thoughtsTokenCount"] = thoughts if limit is None else min(thoughts, limit)
    return out


def _content(config: dict[str, Any], before: list[dict[str, Any]], text: str, reason: str) -> dict[str, Any]:
    """A candidate's content; without `parts` when there is nothing to say, as the service does it. before: parts of
    tools."""
    parts: list[dict[str, Any]] = []
    if config.get("thinkingConfig", {}).get("includeThoughts"):
        parts.append({"text": "The emulator does not think.", "thought": True})
    parts += before
    if text:
        parts.append({"text": text})
        if "IMAGE" in config.get("responseModalities", ()) and reason == "STOP":
            parts.append({"inlineData": {"mimeType": "image/png", "data": pictures.png(text)}})
    return {"parts": parts, "role": "model"} if parts else {"role": "model"}


def _thinks(thinking: dict[str, Any]) -> int:
    asked = thinking.get("includeThoughts") or thinking.get("thinkingBudget", 0) > 0
    return THOUGHT_TOKENS if asked or thinking.get("thinkingLevel", "MINIMAL") != "MINIMAL" else 0


def _text(config: dict[str, Any], prompt: Prompt, draw: Draw) -> str:
    make = schemas.maker(config)
    if make is not None:
        value = make(draw)
        if config.get("responseMimeType") == "text/x.enum" and isinstance(value, str):
            return value
        return msgspec.json.encode(value).decode()
    echo = " ".join(prompt.question.split())[:_ECHO_CHARS]
    if config.get("responseMimeType") == "application/json":
        return msgspec.json.encode({"echo": echo}).decode()
    text = f"Emulated answer to: {echo}"
    for stop in config.get("stopSequences", ()):
        text = text.partition(stop)[0] if stop else text
    return text


def _tokens(text: str) -> int:
    return -(-len(text) // CHARS_PER_TOKEN)
