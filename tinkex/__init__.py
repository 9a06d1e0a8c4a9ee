"""The Tinker fine-tuning API for code that blocks.

Calls return real ``concurrent.futures.Future`` objects at once; nothing here needs an event loop. Start with
:class:`ServiceClient`.

The public names are loaded when they are first used, so ``import tinkex`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tinkex._version import __version__

if TYPE_CHECKING:
    from tinkex import errors, types
    from tinkex.clients import (
        AdminClient,
        LossHandle,
        RestClient,
        SamplingClient,
        ServiceClient,
        TrainingClient,
        register_tokenizer,
    )
    from tinkex.config import CircuitBreaker, ClientConfig, RetryPolicy, Secret
    from tinkex.errors import *  # noqa: F403
    from tinkex.pipeline import APIFuture, Metrics
    from tinkex.types import *  # noqa: F403

_CLIENTS = (
    "AdminClient",
    "LossHandle",
    "RestClient",
    "SamplingClient",
    "ServiceClient",
    "TrainingClient",
    "register_tokenizer",
)
_CONFIG = ("CircuitBreaker", "ClientConfig", "RetryPolicy", "Secret")
_PIPELINE = ("APIFuture", "Metrics")
_MODULES = ("errors", "types")


def _home(name: str) -> str | None:
    """Return the module that a public name lives in."""
    if name in _CLIENTS:
        return "tinkex.clients"
    if name in _CONFIG:
        return "tinkex.config"
    if name in _PIPELINE:
        return "tinkex.pipeline"
    # The last has the official SDK's names, for ``import tinkex as tinker``; they are not listed.
    for module in ("tinkex.errors", "tinkex.types", "tinkex.compat.names"):
        if name in importlib.import_module(module).__all__:
            return module
    return None


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name.startswith("_"):
        raise AttributeError(f"module 'tinkex' has no attribute {name!r}")
    if name in _MODULES:
        return importlib.import_module(f"tinkex.{name}")
    home = _home(name)
    if home is None:
        raise AttributeError(f"module 'tinkex' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    names = {"__version__", *_CLIENTS, *_CONFIG, *_PIPELINE, *_MODULES}
    for module in ("tinkex.errors", "tinkex.types"):
        names.update(importlib.import_module(module).__all__)
    return sorted(names)


__all__ = [
    "APIFuture",
    "AdminClient",
    "CircuitBreaker",
    "ClientConfig",
    "LossHandle",
    "Metrics",
    "RestClient",
    "RetryPolicy",
    "SamplingClient",
    "Secret",
    "ServiceClient",
    "TrainingClient",
    "__version__",
    "errors",
    "register_tokenizer",
    "types",
]
