"""Context caches through Google's client: made, prolonged, dropped, and what requests make of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from emulator_kit import JOB_SECONDS, MODEL, Batches, request_of
from google import genai
from google.genai import errors, types

from batchform.emulator import EmulatorServer

SYSTEM = "Sort tickets by these rules. " * 1000
FUNCTION = {"name": "close"}
HOUR = 3600.0


def cached(client: genai.Client, **config: Any) -> types.CachedContent:
    settings = {"system_instruction": SYSTEM, "ttl": "7200s", "display_name": "bf-cache", **config}
    return client.caches.create(model=MODEL, config=settings)


def with_cache(cache: types.CachedContent, text: str) -> dict[str, Any]:
    return {**request_of(text), "cachedContent": cache.name}


def test_a_cache_is_made_found_prolonged_and_dropped(client: genai.Client, server: EmulatorServer) -> None:
    made = cached(client)
    assert made.name.startswith("cachedContents/") and made.model == f"models/{MODEL}"
    assert made.usage_metadata.total_token_count == len(SYSTEM) // 4
    assert made.expire_time - made.create_time == timedelta(hours=2)
    assert client.caches.get(name=made.name) == made
    assert [c.name for c in client.caches.list() if c.display_name == "bf-cache"] == [made.name]
    server.advance(HOUR)
    longer = client.caches.update(name=made.name, config={"ttl": "7200s"})
    assert longer.expire_time - made.expire_time == timedelta(hours=1)
    client.caches.delete(name=made.name)
    assert list(client.caches.list()) == []
    with pytest.raises(errors.ClientError, match=r"403 PERMISSION_DENIED.*CachedContent not found"):
        client.caches.get(name=made.name)


def test_caches_come_in_pages(client: genai.Client) -> None:
    names = [cached(client).name for _ in range(5)]
    assert [c.name for c in client.caches.list(config={"page_size": 2})] == names


def test_a_batch_reads_its_cache_and_is_billed_as_what_it_stands_for(batches: Batches) -> None:
    client, server = batches.client, batches.server
    whole = {**request_of("Where is it?"), "systemInstruction": {"role": "user", "parts": [{"text": SYSTEM}]}}
    one, other = cached(client), cached(client)
    lines = [batches.run({"k": request})[0] for request in (whole, with_cache(one, "Where is it?"),
                                                           with_cache(other, "Where is it?"))]  # fmt: skip
    usage = [line["response"]["usageMetadata"] for line in lines]
    assert [u["promptTokenCount"] for u in usage] == [usage[0]["promptTokenCount"]] * 3
    assert [u.get("cachedContentTokenCount") for u in usage] == [None, len(SYSTEM) // 4, len(SYSTEM) // 4]
    assert len({line["response"]["candidates"][0]["content"]["parts"][0]["text"] for line in lines}) == 1
    assert len({charge.digest for charge in server.bill()}) == 1


def test_tools_may_lie_in_the_cache(batches: Batches) -> None:
    config: dict[str, Any] = {
        "tools": [{"function_declarations": [FUNCTION]}],
        "tool_config": {"function_calling_config": {"mode": "ANY"}},
    }
    [line] = batches.run({"k": with_cache(cached(batches.client, **config), "Done.")})
    assert line["response"]["candidates"][0]["content"]["parts"] == [{"functionCall": {"name": "close", "args": {}}}]


def test_a_cache_that_ends_before_the_job_fails_its_rows(batches: Batches) -> None:
    short = cached(batches.client, ttl=f"{JOB_SECONDS / 2:.0f}s")
    [line] = batches.run({"k": with_cache(short, "x")})
    assert line["error"]["code"] == 7 and "CachedContent not found" in line["error"]["message"]
    assert batches.server.bill() == []


def test_a_cache_that_is_dropped_is_gone_for_open_jobs(batches: Batches) -> None:
    cache = cached(batches.client)
    job = batches.create({"k": with_cache(cache, "x")})
    batches.client.caches.delete(name=cache.name)
    batches.server.advance(JOB_SECONDS)
    assert batches.results(job)[0]["error"]["code"] == 7


def test_another_model_does_not_read_it(batches: Batches) -> None:
    [line] = batches.run({"k": with_cache(cached(batches.client), "x")}, model="gemini-3.5-flash-lite")
    assert "has to be the same" in line["error"]["message"]


def test_storage_is_counted_until_a_cache_ends(client: genai.Client, server: EmulatorServer) -> None:
    kept, dropped, ended = cached(client, ttl="36000s"), cached(client), cached(client, ttl="1800s")
    server.advance(HOUR)
    client.caches.delete(name=dropped.name)
    server.advance(2 * HOUR)
    found = {s.name: s for s in server.cache_storage()}
    assert found[kept.name].tokens == len(SYSTEM) // 4 and found[kept.name].model == MODEL
    assert [found[c.name].hours for c in (kept, dropped, ended)] == pytest.approx([3, 1, 0.5], abs=0.01)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"system_instruction": "short"},
            "Cached content is too small. total_token_count=2, min_total_token_count=4096",
        ),
        ({"ttl": "two hours"}, "is not a duration"),
        ({"ttl": "0s"}, "is not a duration"),
        ({"ttl": None, "expire_time": "2020-01-01T00:00:00Z"}, "must be in the future"),
        ({"tools": [{"function_declarations": [{"name": "1f"}]}]}, "Invalid function name"),
    ],
)
def test_what_is_refused(client: genai.Client, config: dict[str, Any], said: str) -> None:
    with pytest.raises(errors.ClientError, match="400 INVALID_ARGUMENT") as caught:
        cached(client, **config)
    assert said in str(caught.value)


def test_other_keys_do_not_see_it(client: genai.Client, server: EmulatorServer) -> None:
    made = cached(client)
    with genai.Client(api_key="another", http_options={"base_url": server.url}) as other:
        assert list(other.caches.list()) == []
        with pytest.raises(errors.ClientError, match="403"):
            other.caches.delete(name=made.name)
