"""What goes into asample, and what comes out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Union

import attrs

from tinkex._scalars import plain_number
from tinkex.errors import InvalidInputError
from tinkex.types._base import SEED, Value, copied_list, number, one_of, optional, since, tag, whole
from tinkex.types._numbers import kinds, plain_list, shorten
from tinkex.types.inputs import ModelInput
from tinkex.types.tensors import TensorData

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "PromptAltTokens",
    "SampleRequest",
    "SampleResponse",
    "SampledSequence",
    "SamplingParams",
    "StopReason",
    "TopkLogprobs",
]

StopReason = Literal["stop", "length"]
Stop = Union[str, "list[str]", "list[int]", None]
TopkRows = list[list[tuple[int, float]] | None]
"""For each position the most likely (token id, logprob) pairs, the likeliest first, or None."""

MASK_LOGPROB = -99999.0
"""Logprob of an empty cell where such rows are a matrix; the token id there is 0."""


def _to_stop(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    items = [plain_number(item) for item in plain_list(value)] if isinstance(value, Iterable) else [value]
    if isinstance(value, Iterable) and (kinds(items) <= {str} or kinds(items) <= {int}):
        return items
    raise InvalidInputError(
        f"stop must be a text, a list of texts or a list of token ids (not mixed), got {value!r:.80}",
        field="stop",
    )


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SamplingParams(Value):
    """How to sample.

    Attributes:
        max_tokens: Most tokens to generate; None leaves it to the server.
        seed: Makes the tokens repeatable; sample i of a request uses the seed and i.
        stop: A text, texts or token ids that end a sequence (they stay in it); None ends at the model's end
            token, an empty list never ends early.
        temperature: Divides the logits; 0 is greedy.
        top_k: Sample among the k most likely tokens; -1 is off.
        top_p: Sample among the fewest tokens whose probabilities reach this sum; 1 is off.
    """

    max_tokens: int | None = attrs.field(default=None, converter=plain_number, validator=optional(whole(1)))
    seed: int | None = attrs.field(default=None, converter=plain_number, validator=optional(SEED))
    stop: Stop = attrs.field(default=None, converter=_to_stop)
    temperature: float = attrs.field(default=1.0, converter=plain_number, validator=number(minimum=0))
    top_k: int = attrs.field(default=-1, converter=plain_number, validator=whole(-1))
    top_p: float = attrs.field(default=1.0, converter=plain_number, validator=number(above=0, maximum=1))


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SampleRequest(Value):
    """Body of ``POST asample``.

    Attributes:
        sampling_session_id: Which sampler; then ``seq_id`` is needed. Without it, exactly one of
            ``base_model`` and ``model_path``.
        prompt_logprobs: Also return the logprob of each prompt token.
        topk_prompt_logprobs: Also return the k most likely tokens at each prompt position.
    """

    prompt: ModelInput
    sampling_params: SamplingParams
    num_samples: int = attrs.field(default=1, converter=plain_number, validator=whole(1))
    base_model: str | None = None
    model_path: str | None = None
    sampling_session_id: str | None = None
    seq_id: int | None = attrs.field(default=None, converter=plain_number, validator=optional(whole(0)))
    prompt_logprobs: bool = False
    topk_prompt_logprobs: int = attrs.field(default=0, converter=plain_number, validator=whole(0))
    topk_sample_logprobs: int = attrs.field(
        default=0, converter=plain_number, validator=whole(0), metadata=since("0.29")
    )
    target_prompt_logprobs: TensorData | None = attrs.field(default=None, metadata=since("0.30"))
    prompt_alt_tokens_k: int = attrs.field(
        default=0, converter=plain_number, validator=whole(0), metadata=since("0.31")
    )
    prompt_logprobs_last_n: int | None = attrs.field(
        default=None, converter=plain_number, validator=optional(whole(1)), metadata=since("0.33")
    )
    record_stability_info: bool = attrs.field(default=False, metadata=since("0.27"))
    type: Literal["sample"] = tag("sample")


@attrs.frozen(kw_only=True, slots=True, eq=False, repr=False)
class TopkLogprobs(Value):
    """The likeliest tokens of each position as two matrices of NumPy.

    Attributes:
        token_ids: int32, positions x k; 0 where there is none.
        logprobs: float32, positions x k; -99999 where there is none.
    """

    token_ids: Any
    logprobs: Any

    @classmethod
    def from_rows(cls, rows: TopkRows) -> TopkLogprobs:
        """Make the matrices, as wide as the longest row.

        Raises:
            ImportError: NumPy is not installed.
        """
        import numpy as np

        shape = len(rows), max((len(row or ()) for row in rows), default=0)
        made = cls(token_ids=np.zeros(shape, dtype="int32"), logprobs=np.full(shape, MASK_LOGPROB, dtype="float32"))
        for at, row in enumerate(rows):
            if row:
                made.token_ids[at, : len(row)], made.logprobs[at, : len(row)] = zip(*row, strict=True)
        return made


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SampledSequence(Value):
    """One generated sequence.

    Attributes:
        stop_reason: ``"stop"`` if a stop or the end token ended it, ``"length"`` if ``max_tokens`` did.
        tokens: The generated token ids, with the stop token that ended it.
        logprobs: Logprob of each token under the model; our own server takes it before temperature, top-k and
            top-p.
        topk_logprobs: For each generated token the k most likely (token id, logprob) pairs; None if not asked for.
        sequence_id: Names this sequence for later requests; no part of what it is, so equal ones may have two names.
    """

    stop_reason: StopReason = attrs.field(validator=one_of("stop", "length"))
    tokens: list[int] = attrs.field(converter=plain_list, repr=shorten)
    logprobs: list[float] | None = attrs.field(
        default=None, converter=attrs.converters.optional(plain_list), repr=shorten
    )
    topk_logprobs: TopkRows | None = attrs.field(
        default=None, converter=attrs.converters.optional(copied_list), repr=shorten
    )
    sequence_id: str | None = attrs.field(default=None, eq=False)

    @property
    def tokens_np(self) -> np.ndarray[Any, Any]:
        """The tokens as an int32 array."""
        return _to_numpy(self.tokens, "int32")

    @property
    def logprobs_np(self) -> np.ndarray[Any, Any] | None:
        """The logprobs as a float32 array."""
        return None if self.logprobs is None else _to_numpy(self.logprobs, "float32")

    @property
    def topk_logprobs_np(self) -> TopkLogprobs | None:
        """``topk_logprobs`` as matrices."""
        return None if self.topk_logprobs is None else TopkLogprobs.from_rows(self.topk_logprobs)


@attrs.frozen(kw_only=True, slots=True, repr=False)
class PromptAltTokens(Value):
    """Other tokens drawn for each position of the prompt but the first.

    Attributes:
        tokens: int64, (prompt length - 1) x k; row i has k draws for prompt token i + 1.
        logprobs: float32 of the same shape, their logprobs.
    """

    tokens: TensorData
    logprobs: TensorData


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SampleResponse(Value):
    """What a sample returns.

    Attributes:
        sequences: As many as ``num_samples``.
        prompt_logprobs: One logprob for each prompt token, the first None; None if not asked for.
        topk_prompt_logprobs: For each prompt token the k most likely (token id, logprob) pairs, the first
            None; None if not asked for.
        target_prompt_logprobs: Logprobs of the tokens asked about, float32 in the shape and layout of the
            question, 0 where nothing was asked; None if not asked for.
        prompt_cache_hit_tokens: How many tokens of the prompt the server had in its cache.
        prompt_alt_tokens: Other tokens drawn for the prompt; None if not asked for.
    """

    sequences: list[SampledSequence] = attrs.field(converter=copied_list, repr=shorten)
    prompt_logprobs: list[float | None] | None = attrs.field(
        default=None, converter=attrs.converters.optional(copied_list), repr=shorten
    )
    topk_prompt_logprobs: TopkRows | None = attrs.field(
        default=None, converter=attrs.converters.optional(copied_list), repr=shorten
    )
    target_prompt_logprobs: TensorData | None = None
    prompt_cache_hit_tokens: int = attrs.field(default=0, converter=plain_number, validator=whole(0))
    prompt_alt_tokens: PromptAltTokens | None = None
    type: Literal["sample"] = tag("sample")

    @property
    def prompt_logprobs_np(self) -> np.ndarray[Any, Any] | None:
        """The logprobs of the prompt as a float32 array, NaN for None."""
        if self.prompt_logprobs is None:
            return None
        return _to_numpy([math.nan if value is None else value for value in self.prompt_logprobs], "float32")

    @property
    def topk_prompt_logprobs_np(self) -> TopkLogprobs | None:
        """``topk_prompt_logprobs`` as matrices."""
        return None if self.topk_prompt_logprobs is None else TopkLogprobs.from_rows(self.topk_prompt_logprobs)


def _to_numpy(values: list[Any], dtype: str) -> np.ndarray[Any, Any]:
    import numpy as np

    return np.array(values, dtype=dtype)


def to_params(value: Any) -> SamplingParams:
    """Return how to sample, also out of a dict.

    Raises:
        InvalidInputError: It is neither, or the dict has a key that is no field.
    """
    if isinstance(value, SamplingParams):
        return value
    try:
        if isinstance(value, Mapping):
            return SamplingParams(**value)
    except TypeError:  # an unknown key
        pass
    raise InvalidInputError(f"sampling_params must be a SamplingParams, got {value!r:.80}", field="sampling_params")


def check_prompt(prompt: Any) -> None:
    """Check a prompt before anything is sent.

    Raises:
        InvalidInputError: It is not a ModelInput, or it is empty.
    """
    if not isinstance(prompt, ModelInput):
        raise InvalidInputError(
            f"prompt must be a ModelInput, got {prompt!r:.80}; for token ids use ModelInput.from_ints(tokens)",
            field="prompt",
        )
    if not prompt.chunks or not any(_has_length(chunk) for chunk in prompt.chunks):
        raise InvalidInputError("prompt is empty: it needs at least one token", field="prompt")


def _has_length(chunk: Any) -> bool:
    try:
        return bool(chunk.length)
    except InvalidInputError:
        return True
