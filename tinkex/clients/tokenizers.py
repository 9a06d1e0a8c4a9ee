"""Finding the tokenizer that belongs to a base model."""

from __future__ import annotations

import functools
from typing import Any

from tinkex.data import builtin_models, canonical_name
from tinkex.errors import ConfigurationError

__all__ = ["load_tokenizer"]

_LLAMA3_MIRROR = "thinkingmachineslabinc/meta-llama-3-instruct-tokenizer"


def load_tokenizer(base_model: str, tokenizer_id: str | None = None) -> Any:
    """Load the Hugging Face tokenizer of a base model; loaded once per process.

    Args:
        base_model: Name of the base model, such as ``Qwen/Qwen3-8B``.
        tokenizer_id: Where the server says the tokenizer is: a name on the Hugging Face hub or a folder.

    Returns:
        A ``transformers`` tokenizer. The one of the built-in model is read from the installed package; others from
        their folder or from the hub.

    Raises:
        ConfigurationError: ``transformers`` is not installed, or the tokenizer cannot be found.
    """
    return _load(_location(base_model, tokenizer_id))


def _location(base_model: str, tokenizer_id: str | None) -> str:
    folder = builtin_models().get(canonical_name(base_model))
    if folder is not None:
        return str(folder)
    if tokenizer_id:
        # Some servers append a revision or variant after a colon, which the hub does not know.
        return tokenizer_id.split(":", 1)[0] if "/" in tokenizer_id.split(":", 1)[0] else tokenizer_id
    if base_model.startswith("meta-llama/Llama-3"):
        # The original is gated: it cannot be downloaded without an account.
        return _LLAMA3_MIRROR
    return "/".join(base_model.split(":", 1)[0].split("/")[:2])


@functools.lru_cache(maxsize=16)
def _load(location: str) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ConfigurationError(
            "a tokenizer needs the package transformers, which is not installed: pip install transformers "
            '(or pip install "tinkex[local]" for it and everything that training on this machine needs)'
        ) from error
    try:
        return AutoTokenizer.from_pretrained(location)
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise ConfigurationError(
            f"no tokenizer at {location!r} ({reason}); load one yourself with "
            "transformers.AutoTokenizer.from_pretrained(folder_or_name)"
        ) from error
