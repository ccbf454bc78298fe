"""What a backend of the Gemini API takes from the environment: its key, and the version of the API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from batchform.errors import AuthError
from batchform.spec.model import EmulatorBackend
from batchform.spec.model import GeminiBackend as GeminiConfig

KEY_VARIABLES: Final = ("GOOGLE_API_KEY", "GEMINI_API_KEY")
EMULATOR_KEY: Final = "emulator"
KEY_HEADER: Final = "x-goog-api-key"


def key_variables(config: GeminiConfig) -> tuple[str, ...]:
    """Where a key is looked for, in this order."""
    return (config.api_key_env,) if config.api_key_env else KEY_VARIABLES


def find_api_key(config: GeminiConfig | EmulatorBackend, env: Mapping[str, str]) -> str:
    """The API key in the environment. Raises AuthError saying where it was looked for."""
    if isinstance(config, EmulatorBackend):
        return EMULATOR_KEY
    variables = key_variables(config)
    for variable in variables:
        key = env.get(variable, "").strip()
        if key and not (key.isascii() and key.isprintable()):
            raise AuthError(
                f"The API key in {variable} holds characters that no key has.", hint="Export it anew, as it was given."
            )
        if key:
            return key
    where = variables[0] if len(variables) == 1 else f"neither {variables[0]} nor {variables[1]}"
    raise AuthError(
        f"There is no API key: {where} is {'not ' if len(variables) == 1 else ''}set.",
        hint="Get one at https://aistudio.google.com/apikey and export it, or use `type: emulator`.",
    )


def api_version(config: GeminiConfig | EmulatorBackend, env: Mapping[str, str]) -> str:
    """As the SDK settles it: its own default is v1, and `beta` means v1beta."""
    stated = config.api_version if isinstance(config, GeminiConfig) else None
    version = stated or env.get("GOOGLE_GENAI_API_VERSION") or "v1"
    return "v1beta" if version == "beta" else version
