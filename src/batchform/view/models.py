"""What is known of models, for people and programs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import yaml
from rich.console import Console
from rich.text import Text

from batchform.plan.registry import ModelInfo, Origin, PriceEntry, Registry
from batchform.plan.served import Difference
from batchform.spec.wording import counted
from batchform.view.console import Grid, line, make_console, plain_table
from batchform.view.text import count, safe, safe_lines

_SOON: Final = dt.timedelta(days=60)
_PRICES: Final = {
    "batch_input": "batch input",
    "batch_output": "batch output",
    "batch_output_image": "batch output, images",
    "input": "input",
    "output": "output",
    "output_image": "output, images",
    "cached": "cached input",
}


def model_json(registry: Registry, info: ModelInfo, now: dt.datetime) -> dict[str, Any]:
    """A model for programs: its fields, the price of today, all that are known, and where each is from."""
    price = registry.price(info.id, now)
    told: dict[str, Any] = msgspec.to_builtins(info)
    told["sources"] = {field: msgspec.to_builtins(registry.origins.get(id_)) for field, id_ in info.sources.items()}
    told["price"] = None if price is None else msgspec.to_builtins(price)
    told["prices"] = msgspec.to_builtins(registry.prices.get(info.id, ()))
    told["vertex_prices"] = msgspec.to_builtins(registry.vertex_prices.get(info.id, ()))
    return told


def print_models(registry: Registry, now: dt.datetime, console: Console | None = None) -> None:
    """A line a model; columns that do not fit are left to `models show`."""
    console = console or make_console()
    table = plain_table()
    wide = console.width >= 110
    table.add_column("model", no_wrap=True)
    table.add_column("batch", no_wrap=True)
    for name in ("input $/M", "output $/M"):
        table.add_column(name, justify="right", no_wrap=True)
    if wide:
        table.add_column("tokens in", justify="right", no_wrap=True)
        table.add_column("tokens out", justify="right", no_wrap=True)
    table.add_column("until", no_wrap=True)
    if wide:
        table.add_column("then", no_wrap=True)
    if widest := console.width >= 180:
        table.add_column("reads", no_wrap=True)
        table.add_column("thinks", no_wrap=True)
    for info in registry.models.values():
        price = registry.price(info.id, now)
        cells: list[str | Text] = [Text(safe(info.id)), _batch(info)]
        cells += ["", ""] if price is None else [_dollars(price.batch_input), _dollars(_output(info, price))]
        if wide:
            cells += [_tokens(info.max_input_tokens), _tokens(info.max_output_tokens)]
        cells.append(_until(info.shutdown, now.date()))
        cells += [Text(safe(info.replaced_by or ""))] if wide else []
        cells += [Text(safe(", ".join(info.reads or ()))), _thinks(info)] if widest else []
        table.add_row(*cells)
    console.print(table)
    console.print()
    words = f"Batch prices of {registry.prices_dated}, models of {registry.models_dated}; on the Gemini API."
    console.print(line((words, "dim")))
    console.print(line(("`batchform models show MODEL` has sources, `models refresh` asks the service.", "dim")))


def print_model(registry: Registry, info: ModelInfo, now: dt.datetime, console: Console | None = None) -> None:
    """All that is known of one model, with where from and when."""
    console = console or make_console()
    console.print(line((safe(info.id), "bold")))
    facts = list(_facts(registry, info))
    sources = list(dict.fromkeys(source for _, _, source in facts if source))
    if facts:
        numbers = {source: f"[{i}]" for i, source in enumerate(sources, 1)}
        console.print(
            Grid([(Text(name), Text(numbers.get(source, ""), style="dim"), Text(safe(value)))
                  for name, value, source in facts])
        )  # fmt: skip
    if info.note:
        console.print(line(safe(info.note), indent=2))
    console.print()
    _print_prices(registry, info, now, console)
    if sources:
        console.print()
    for number, source in enumerate(sources, 1):
        console.print(Text(f"  [{number}] {safe(source)}", style="dim"), soft_wrap=True)


def _print_prices(registry: Registry, info: ModelInfo, now: dt.datetime, console: Console) -> None:
    price = registry.price(info.id, now)
    if price is None:
        console.print(line("no price is known: plans with this model have no cost"))
        return
    _print_price(registry, price, console)
    for other in registry.prices.get(info.id, ()):
        if other is not price:
            _print_price(registry, other, console)
    for there in registry.vertex_prices.get(info.id, ()):
        _print_price(registry, there, console, where=" on Vertex AI")


def _print_price(registry: Registry, price: PriceEntry, console: Console, *, where: str = "") -> None:
    life = " ".join(f"{word} {day}" for word, day in (("from", price.since), ("until", price.until)) if day)
    console.print(line(f"US dollars per million tokens{where}", f", {life}" if life else ""))
    rows = [
        (Text(words), Text(_dollars(v))) for name, words in _PRICES.items() if (v := getattr(price, name)) is not None
    ]
    console.print(Grid(rows))
    if price.above_200k is not None:
        more = price.above_200k
        words = f"above 200,000 tokens of prompt: {_dollars(more.batch_input)} in, {_dollars(more.batch_output)} out"
        console.print(line(words, indent=2))
    console.print(line((_from(registry.price_origins, price.source, price.dated), "dim"), indent=2))


def print_differences(
    backend: str,
    served: int,
    found: Sequence[Difference],
    changes: Mapping[str, Any],
    console: Console | None = None,
) -> None:
    """What the table and the service do not say alike, and the YAML that would make them."""
    console = console or make_console()
    if not found:
        console.print(line(f"The table agrees with the {counted(served, 'model')} that {safe(backend)} lists."))
        return
    for difference in found:
        console.print(Grid([(Text("~", style="yellow"), Text(safe(difference.message)))], indent=0))
    if changes:
        console.print()
        console.print(line("In the file that `prices:` in batchform.yaml names, this says what the service says:"))
        text = yaml.safe_dump({"models": dict(changes)}, sort_keys=False)
        console.print(Text("\n".join(safe_lines(text.rstrip()))), soft_wrap=True)


def _dollars(price: float) -> str:
    """The price itself: a list price is not rounded."""
    return f"${price:.2f}" if round(price, 2) == price else f"${price:.10g}"


def _batch(info: ModelInfo) -> Text:
    return Text("yes" if info.kind == "text" else info.kind) if info.batch else Text("no", style="red")


def _thinks(info: ModelInfo) -> str:
    """What of its thinking is known: by default, and by which levels."""
    if info.thinks is None and info.thinking_levels is None and info.thinking_off is None:
        return ""
    always = (
        "always" if info.thinking_off is False else "yes" if info.thinks else "" if info.thinks is None else "if told"
    )
    return " ".join(filter(None, (always, "/".join(w.lower() for w in info.thinking_levels or ()))))


def _output(info: ModelInfo, price: PriceEntry) -> float:
    return price.batch_output_image if info.kind == "image" and price.batch_output_image else price.batch_output


def _tokens(limit: int | None) -> str:
    return "" if limit is None else count(limit)


def _until(end: dt.date | None, today: dt.date) -> Text:
    if end is None:
        return Text("")
    return Text(str(end), style="red" if end <= today else "yellow" if end <= today + _SOON else "")


def _facts(registry: Registry, info: ModelInfo) -> Iterator[tuple[str, str, str]]:
    """Name, value, source of each thing that is known."""
    for name in info.__struct_fields__:
        value = getattr(info, name)
        if name in ("id", "note", "sources") or value is None:
            continue
        source = info.sources.get(name, "")
        yield name, _worded(value), _from(registry.origins, source, None) if source else ""


def _from(origins: Mapping[str, Origin], source: str, dated: dt.date | None) -> str:
    origin = origins.get(source)
    if origin is None:
        return f"from {source}" if source else "from your own file"
    return f"{origin.url} ({dated or origin.dated})"


def _worded(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(_worded, value))
    return count(value) if isinstance(value, int) else str(value)
