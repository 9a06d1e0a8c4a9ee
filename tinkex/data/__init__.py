"""The small language model that comes with the package: what it is called and where it lies."""

from __future__ import annotations

from pathlib import Path

__all__ = ["TINY_ALIASES", "TINY_NAME", "TINY_PATH", "builtin_models", "canonical_name"]

TINY_NAME = "tinkex/tiny-0.9m"
TINY_ALIASES = ("tiny", "tinkex/tiny")
TINY_PATH = Path(__file__).parent / "tiny"


def builtin_models() -> dict[str, Path]:
    """Return the models in the package: base-model name to a folder that transformers can read."""
    return {TINY_NAME: TINY_PATH}


def canonical_name(base_model: str) -> str:
    """Return the full name for an alias of the built-in model, and any other name unchanged."""
    return TINY_NAME if base_model in TINY_ALIASES else base_model
