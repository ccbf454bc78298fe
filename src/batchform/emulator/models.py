"""The models that the emulator serves, as data, under the ids that Google lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from batchform.emulator.refusal import Refusal

GENERATE: Final = "generateContent"
COUNT: Final = "countTokens"
BATCH: Final = "batchGenerateContent"
EMBED: Final = "embedContent"
EMBED_SEVERAL: Final = "batchEmbedContents"
EMBED_BATCH: Final = "asyncBatchEmbedContent"
_EMBEDS: Final = (EMBED, EMBED_SEVERAL, COUNT, EMBED_BATCH)


class Model(Struct, frozen=True):
    """One model. methods: what may be called on it; levels: thinking levels it takes, empty for all;
    dimensions: shortest and longest of its vectors."""

    id: str
    methods: tuple[str, ...] = (GENERATE, COUNT, BATCH)
    input_limit: int = 1_048_576
    output_limit: int = 65_536
    thinking: bool = True
    levels: tuple[str, ...] = ()
    dimensions: tuple[int, int] = (128, 3072)

    @property
    def embeds(self) -> bool:
        """Whether it makes vectors, and nothing else."""
        return EMBED_BATCH in self.methods

    def resource(self) -> dict[str, Any]:
        """The model as `models.get` shows it."""
        return {
            "name": f"models/{self.id}",
            "version": "emulator",
            "displayName": f"{self.id} (emulator)",
            "description": "Synthetic answers from the batchform emulator. No model is asked.",
            "inputTokenLimit": self.input_limit,
            "outputTokenLimit": self.output_limit,
            "supportedGenerationMethods": list(self.methods),
            "temperature": 1,
            "topP": 0.95,
            "topK": 64,
            "maxTemperature": 2,
            "thinking": self.thinking,
        }


_NO_MINIMAL = ("LOW", "MEDIUM", "HIGH")

MODELS: Final[Mapping[str, Model]] = {
    m.id: m
    for m in (
        Model("gemini-3.8-flash", levels=_NO_MINIMAL),
        Model("gemini-3.7-flash", levels=_NO_MINIMAL),
        Model("gemini-3.6-flash"),
        Model("gemini-3.5-flash"),
        Model("gemini-3.5-flash-lite"),
        Model("gemini-3.1-flash-lite"),
        Model("gemini-3.1-pro-preview"),
        Model("gemini-3-flash-preview"),
        Model("gemini-3-pro-preview"),
        Model("gemini-2.5-pro"),
        Model("gemini-2.5-flash"),
        Model("gemini-2.5-flash-lite"),
        Model("gemini-4-argon", methods=(GENERATE, COUNT)),  # its batch is not advertised
        Model("gemini-2.5-flash-image", input_limit=32_768, output_limit=32_768, thinking=False),
        Model("gemini-3.1-flash-image", input_limit=65_536, output_limit=32_768),
        Model("gemini-3.1-flash-lite-image", input_limit=65_536, output_limit=32_768),
        Model("gemini-3-pro-image", input_limit=65_536, output_limit=32_768),
        Model("gemini-nano-banana-2.1", input_limit=65_536, output_limit=32_768),
        Model("gemini-embedding-001", _EMBEDS, 2_048, 1, thinking=False),
        Model("gemini-embedding-2", _EMBEDS, 8_192, 1, thinking=False),
    )
}


def find(name: str, *, method: str | None = None) -> Model:
    """The model called `models/x` or `x`. Raises Refusal: 404 without it, 400 without the method."""
    short = name.removeprefix("models/")
    model = MODELS.get(short)
    ask = "Call ListModels to see the list of available models and their supported methods."
    if model is None:
        use = f", or is not supported for {method}" if method else ""
        raise Refusal(404, f"models/{short} is not found{use}. {ask}")
    if method is not None and method not in model.methods:
        raise Refusal(400, f"models/{short} is not supported for {method}. {ask}")
    return model
