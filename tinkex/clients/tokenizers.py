"""Finding the tokenizer that belongs to a base model, and taking a program's own loaders for those that are code."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

from tinkex.data import builtin_models, canonical_name
from tinkex.errors import ConfigurationError, InvalidInputError

__all__ = ["TokenizerLoader", "load_tokenizer", "register_tokenizer"]

TokenizerLoader = Callable[[str], Any]
"""Takes the name of a tokenizer and returns it."""

_LLAMA3_MIRROR = "thinkingmachineslabinc/meta-llama-3-instruct-tokenizer"

_VARIANTS = {"moonshotai/Kimi-K2.5-Text-Only": "moonshotai/Kimi-K2.5"}
"""Names of the API for what the hub has under another."""

_HUB_CODE = {
    "moonshotai/Kimi-K2-Thinking": "612681931a8c906ddb349f8ad0f582cb552189cd",
    "moonshotai/Kimi-K2.5": "4d01dfe0332d63057c186e0b262165819efb6611",
    "moonshotai/Kimi-K2.6": "b5aabbfb20227ed42becbf5541dbffd213942c58",
    "moonshotai/Kimi-K3": "f831ab66814297da540d832a5235f8e904f29d06",
}
"""Tokenizers that are code on the hub, and the commits that the official SDK 0.38 runs. They are listed because
transformers may find another tokenizer for such a model if it may not run the code: wrong tokens, in silence."""

_PACKAGED = ("TML/", "thinkingmachines/")
"""How the names begin whose tokenizers are in the package tml_tokenizers of Thinking Machines."""

_lock = threading.Lock()
# Guarded by _lock:
_loaders: dict[str, TokenizerLoader] = {}


def register_tokenizer(prefix: str, loader: TokenizerLoader) -> None:
    """Load tokenizers with a function of yours, in all clients of this process.

    For those that bring code along, which nothing here runs unasked; for those that you keep elsewhere; and for models
    that ``transformers`` does not know. ``get_tokenizer`` then calls the function, once for each name::

        def load_kimi(name):
            return AutoTokenizer.from_pretrained(name, revision=COMMIT, trust_remote_code=True)

        tinkex.register_tokenizer("moonshotai/Kimi-K2.5", load_kimi)

    Args:
        prefix: How the names begin: whole names such as ``Qwen/Qwen3-8B``, or all of an owner, ``Qwen/``. Of several
            that fit the longest counts, and of the same one the last. The name is the server's ``tokenizer_id`` where
            it says one, else that of the base model without its variant; errors show it.
        loader: Called with the name, which always begins with the prefix, whatever the server says; returns the
            tokenizer. What it raises, ``get_tokenizer`` raises.

    Raises:
        InvalidInputError: The prefix is not a text, or the loader is not a function.
    """
    if not (prefix and isinstance(prefix, str)):
        raise InvalidInputError(f"prefix must be a non-empty text, got {prefix!r:.60}", field="prefix")
    if not callable(loader):
        raise InvalidInputError(f"loader must be a function of a name, got {loader!r:.60}", field="loader")
    with _lock:
        _loaders[prefix] = loader


def load_tokenizer(base_model: str, tokenizer_id: str | None = None) -> Any:
    """Load the tokenizer of a base model; loaded once per process.

    Args:
        base_model: Name of the base model, such as ``Qwen/Qwen3-8B``.
        tokenizer_id: Where the server says the tokenizer is: a name on the Hugging Face hub or a folder.

    Returns:
        What the program's own loader returns, if there is one for the name; else a ``transformers`` tokenizer. The one
        of the built-in model is read from the installed package; others from their folder or from the hub.

    Raises:
        ConfigurationError: ``transformers`` is not installed, or the tokenizer cannot be found, or it is code of its
            own and no loader is registered for it.
    """
    name = _location(base_model, tokenizer_id)
    return _load(name, _loader_of(name))


def _location(base_model: str, tokenizer_id: str | None) -> str:
    folder = builtin_models().get(canonical_name(base_model))
    if folder is not None:
        return str(folder)
    if tokenizer_id:
        # Some servers append a revision or variant after a colon, which the hub does not know.
        name = tokenizer_id.split(":", 1)[0] if "/" in tokenizer_id.split(":", 1)[0] else tokenizer_id
    elif base_model.startswith("meta-llama/Llama-3"):
        # The original is gated: it cannot be downloaded without an account.
        name = _LLAMA3_MIRROR
    else:
        name = "/".join(base_model.split(":", 1)[0].split("/")[:2])
    return _VARIANTS.get(name, name)


def _loader_of(name: str) -> TokenizerLoader:
    with _lock:
        fitting = [prefix for prefix in _loaders if name.startswith(prefix)]
        return _loaders[max(fitting, key=len)] if fitting else _from_transformers


@functools.lru_cache(maxsize=16)
def _load(name: str, loader: TokenizerLoader) -> Any:
    """Call a loader. Those that were replaced keep what they have loaded to themselves."""
    tokenizer = loader(name)
    if tokenizer is None:
        raise ConfigurationError(f"the loader registered for the tokenizer {name!r} returned None")
    return tokenizer


def _from_transformers(name: str) -> Any:
    if name in _HUB_CODE:
        raise _is_code(name, f"revision={_HUB_CODE[name]!r}, ")
    if name.startswith(_PACKAGED):
        # No pip command: what an index has under this name need not be theirs.
        raise ConfigurationError(
            f"the tokenizer {name!r} is in the package tml_tokenizers of Thinking Machines; where you have that, call "
            f"tinkex.register_tokenizer({name!r}, tml_tokenizers.tinker_tokenizers.get_tinker_tokenizer); elsewhere "
            "give it another loader"
        )
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ConfigurationError(
            "a tokenizer needs the package transformers, which is not installed: pip install transformers "
            '(or pip install "tinkex[local]" for it and everything that training on this machine needs)'
        ) from error
    try:
        # Without the second argument, transformers asks whoever sits at the terminal.
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise _is_code(name) from error
        reason = str(error).strip().split("\n", 1)[0]
        raise ConfigurationError(
            f"no tokenizer at {name!r} ({reason}); if you have it elsewhere: tinkex.register_tokenizer({name!r}, "
            "lambda name: transformers.AutoTokenizer.from_pretrained(folder_or_name))"
        ) from error


def _is_code(name: str, revision: str = "") -> ConfigurationError:
    return ConfigurationError(
        f"the tokenizer {name!r} is code of its own, which is not run unasked; if you trust it, call "
        f"tinkex.register_tokenizer({name!r}, lambda name: "
        f"transformers.AutoTokenizer.from_pretrained(name, {revision}trust_remote_code=True))"
    )
