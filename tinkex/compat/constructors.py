"""What the classes of the official SDK take and ours do not: unknown names, other names, positions; and ``holder``."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from tinkex import types
from tinkex.clients import RestClient, SamplingClient, ServiceClient, TrainingClient
from tinkex.compat.plain import fields_of, refuses_unknown, values
from tinkex.config import ClientConfig, RetryPolicy
from tinkex.types._base import Value
from tinkex.types.sampling import MASK_LOGPROB

__all__ = ["add", "remove"]

_POSITIONS = {
    "ForwardBackwardInput": ("data", "loss_fn", "loss_fn_config"),
    "ForwardBackwardOutput": ("loss_fn_output_type", "loss_fn_outputs", "metrics"),
    "ForwardBackwardRequest": ("forward_backward_input", "model_id", "seq_id"),
    "ForwardRequest": ("forward_input", "model_id", "seq_id"),
    "PromptAltTokens": ("tokens", "logprobs"),
    "SampleResponse": (
        "sequences",
        "prompt_logprobs_np",
        "topk_prompt_logprobs_np",
        "target_prompt_logprobs",
        "prompt_cache_hit_tokens",
        "prompt_alt_tokens",
    ),
    "SampledSequence": ("stop_reason", "sequence_id", "tokens_np", "logprobs_np", "topk_logprobs_np"),
}
"""The arguments by position of what is a dataclass in the official SDK."""


def _as_it_is(values: Any) -> Any:
    return values


def _or_none(values: Any) -> Any:
    return None if values is None else [None if math.isnan(value) else value for value in values]


def _rows(matrices: types.TopkLogprobs | None) -> Any:
    if matrices is None:
        return None
    pairs = zip(matrices.token_ids.tolist(), matrices.logprobs.tolist(), strict=True)
    rows = ([pair for pair in zip(*row, strict=True) if pair[1] > MASK_LOGPROB] for row in pairs)
    return [row or None for row in rows]


_OTHER_NAMES: dict[str, dict[str, tuple[str, Callable[[Any], Any]]]] = {
    "SampleResponse": {
        "prompt_logprobs_np": ("prompt_logprobs", _or_none),
        "topk_prompt_logprobs_np": ("topk_prompt_logprobs", _rows),
        "_prompt_logprobs_list": ("prompt_logprobs", _as_it_is),
        "_topk_prompt_logprobs_list": ("topk_prompt_logprobs", _as_it_is),
    },
    "SampledSequence": {
        "tokens_np": ("tokens", lambda tokens: [] if tokens is None else tokens),
        "logprobs_np": ("logprobs", _as_it_is),
        "topk_logprobs_np": ("topk_logprobs", _rows),
        # Private there, and given by name in tests of programs.
        "_tokens_list": ("tokens", _as_it_is),
        "_logprobs_list": ("logprobs", _as_it_is),
        "_topk_logprobs_list": ("topk_logprobs", _as_it_is),
    },
}
"""Arguments of the official SDK that are arrays, with our name and what makes lists of them."""


def _ignore(what: str, unknown: list[str]) -> None:
    """Say once for each place of a program that something is ignored, as the official SDK does."""
    warnings.warn(f"{what} ignores unsupported arguments: {', '.join(sorted(unknown))}", FutureWarning, stacklevel=4)


def _value_arguments(cls: type[Any], args: tuple[Any, ...], given: dict[str, Any]) -> dict[str, Any]:
    name, known = cls.__name__, fields_of(cls)
    positions = _POSITIONS.get(name, ())
    if len(args) > len(positions):
        raise TypeError(f"{name}() takes {len(positions)} arguments by position, got {len(args)}")
    given = {**dict(zip(positions, args, strict=False)), **given}
    for theirs, (ours, convert) in _OTHER_NAMES.get(name, {}).items():
        if theirs in given and ((value := given.pop(theirs)) is not None or ours not in given):
            given[ours] = convert(value)
    unknown = [key for key in given if key not in known]
    if unknown and not positions:
        _ignore(name, unknown)
        given = {key: value for key, value in given.items() if key in known}
    return given


def _wrap_value(cls: type[Any], init: Callable[..., None]) -> Callable[..., None]:
    known = fields_of(cls).keys()

    @functools.wraps(init)
    def adapted(self: Any, *args: Any, **given: Any) -> None:
        if args or not given.keys() <= known:
            given = _value_arguments(cls, args, given)
        init(self, **given)

    return adapted


def _wrap_service(init: Callable[..., None]) -> Callable[..., None]:
    known = {field.name for field in attrs.fields(ClientConfig)}
    known |= {"user_metadata", "display_name", "default_headers_overrides", "config", "observers"}

    @functools.wraps(init)
    def adapted(self: Any, *args: Any, **given: Any) -> None:
        given.update(_settings(given.pop("timeout", None), given.pop("max_retries", None)))
        unknown = [key for key in given if key not in known]
        if unknown:
            _ignore("ServiceClient", unknown)
        init(self, *args, **{key: value for key, value in given.items() if key in known})

    return adapted


def _settings(timeout: Any, max_retries: int | None) -> dict[str, Any]:
    """Return what two settings mean that older SDKs took; an ``httpx.Timeout`` has one time for each phase."""
    read, connect = getattr(timeout, "read", timeout), getattr(timeout, "connect", None)
    retry = None if max_retries is None else RetryPolicy(max_attempts=max_retries + 1)
    found = {"timeout": read, "connect_timeout": connect, "retry": retry}
    return {name: value for name, value in found.items() if value is not None}


def _wrapped() -> Iterator[tuple[type[Any], Callable[[Callable[..., None]], Callable[..., None]]]]:
    yield ServiceClient, _wrap_service
    for cls in values():
        if cls.__name__ in _POSITIONS or (issubclass(cls, Value) and not refuses_unknown(cls)):
            yield cls, functools.partial(_wrap_value, cls)


def _no_holder(self: object) -> Any:
    """Say where to look instead; ``getattr`` with a default and ``hasattr`` find nothing."""
    raise AttributeError(
        f"{type(self).__name__!r} by tinkex has no 'holder': there is no event loop behind the clients that it could "
        "hold; ServiceClient has the settings (config), a client its own methods and ids"
    )


_CLIENTS: tuple[type[Any], ...] = (ServiceClient, TrainingClient, SamplingClient, RestClient)


def add() -> None:
    """Let the constructors take it."""
    for cls, wrap in _wrapped():
        cls.__init__ = wrap(cls.__init__)
    for client in _CLIENTS:
        client.holder = property(_no_holder)


def remove() -> None:
    """Make them what they were."""
    for cls, _ in _wrapped():
        cls.__init__ = cls.__init__.__wrapped__
    for client in _CLIENTS:
        del client.holder
