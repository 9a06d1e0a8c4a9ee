"""Refuse what a model can never run; without torch, so that it can be done while the engine is at work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs

from tinkex.errors import InvalidInputError
from tinkex.local.engine.losses import resolve
from tinkex.types import (
    Datum,
    EncodedTextChunk,
    ForwardBackwardInput,
    LoraConfig,
    ModelInput,
    SampleRequest,
    TensorData,
)
from tinkex.types._numbers import bounds
from tinkex.types.sampling import check_prompt
from tinkex.types.training import LOSS_INPUTS, check_custom_inputs, check_data

if TYPE_CHECKING:
    from tinkex.local.engine.graphs import GraphLoss

__all__ = [
    "MAX_RANK",
    "MAX_SAMPLES",
    "MAX_TOPK_LOGPROBS",
    "Limits",
    "check_batch",
    "check_lora",
    "check_sample",
    "default_max_tokens",
]

MAX_RANK = 128
MAX_SAMPLES = 256
MAX_TOPK_LOGPROBS = 20


@attrs.frozen(kw_only=True, slots=True)
class Limits:
    """What the checks need to know of a base model.

    Attributes:
        base_model: Its name.
        context: Longest sequence it reads, in tokens.
        vocab: Number of token ids.
        has_tokenizer: True if its folder has a tokenizer, which stop texts need.
    """

    base_model: str
    context: int
    vocab: int
    has_tokenizer: bool = True


def check_lora(lora: LoraConfig) -> None:
    """Refuse a rank above the limit.

    Raises:
        InvalidInputError: The rank is above ``MAX_RANK``.
    """
    if lora.rank > MAX_RANK:
        raise InvalidInputError(
            f"lora_config.rank is {lora.rank}; the most this engine trains is {MAX_RANK}",
            field="lora_config.rank",
        )


def check_batch(limits: Limits, batch: ForwardBackwardInput, own: GraphLoss | None = None) -> None:
    """Refuse a batch that can never run on this base model.

    Args:
        limits: What the base model can do.
        batch: The batch.
        own: The client's own loss, if the batch names one.

    Raises:
        InvalidInputError: The loss is unknown; an input is missing, unknown or of the wrong size or type; a token
            id is outside the vocabulary; a sequence is longer than the context; or there are images or audio.
    """
    if own is None:
        resolve(batch.loss_fn, batch.loss_fn_config)
    check_data(batch.data, batch.loss_fn, here=True)
    if own is not None:
        check_custom_inputs(batch.data, own.inputs, own.name)
    for index, datum in enumerate(batch.data):
        _check_input(limits, datum.model_input, f"data[{index}].model_input", index)
        _check_length(limits, datum.model_input.length, f"data[{index}].model_input", index)
        read = ("target_tokens",) if own is not None else LOSS_INPUTS[batch.loss_fn].names
        for name, tensor in datum.loss_fn_inputs.items():
            if name in read:
                _check_tensor(limits, name, tensor, f"data[{index}].loss_fn_inputs[{name!r}]", index)
        if "sequence_ratio_mask" in read:
            _check_mask(datum, index)


def check_sample(limits: Limits, request: SampleRequest) -> None:
    """Refuse a sample that can never run on this base model.

    Raises:
        InvalidInputError: The prompt is empty, not text, outside the vocabulary or leaves no room in the context;
            a count is above its limit; a stop cannot be matched; or a question does not fit the prompt.
    """
    check_prompt(request.prompt)
    _check_input(limits, request.prompt, "prompt", None)
    length, wanted = request.prompt.length, request.sampling_params.max_tokens
    _check_length(limits, length, "prompt", None)
    if length + (wanted or 1) > limits.context:
        raise InvalidInputError(
            f"sampling_params.max_tokens is {wanted or 1} after a prompt of {length} tokens; {limits.base_model} "
            f"has room for {limits.context} tokens in all. Shorten the prompt or ask for fewer",
            field="sampling_params.max_tokens",
        )
    _at_most("num_samples", request.num_samples, MAX_SAMPLES)
    for field in ("topk_prompt_logprobs", "topk_sample_logprobs", "prompt_alt_tokens_k"):
        _at_most(field, getattr(request, field), MAX_TOPK_LOGPROBS)
    _check_stop(limits, request.sampling_params.stop)
    _check_last_n(request, length)
    _check_targets(limits, request.target_prompt_logprobs, length)


def default_max_tokens(limits: Limits, request: SampleRequest) -> int:
    """Return how many tokens to generate at most: what the request says, else what is left of the context."""
    return request.sampling_params.max_tokens or limits.context - request.prompt.length


def _check_input(limits: Limits, model_input: ModelInput, field: str, index: int | None) -> None:
    for position, chunk in enumerate(model_input.chunks):
        if not isinstance(chunk, EncodedTextChunk):
            raise InvalidInputError(
                f"{field}.chunks[{position}] is a {type(chunk).__name__}, {limits.base_model} reads text only; "
                "pass token ids",
                field=f"{field}.chunks[{position}]",
                index=index,
            )
        _check_ids(limits, chunk.buffer, f"{field}.chunks[{position}].tokens", index)


def _check_ids(limits: Limits, ids: Any, field: str, index: int | None) -> None:
    low, high = bounds(ids)
    if low < 0 or high >= limits.vocab:
        bad = high if high >= limits.vocab else low
        raise InvalidInputError(
            f"{field} holds the token id {bad}; {limits.base_model} knows 0 to {limits.vocab - 1}. "
            "Was the text encoded with another model's tokenizer?",
            field=field,
            index=index,
        )


def _check_length(limits: Limits, length: int, field: str, index: int | None) -> None:
    if length > limits.context:
        raise InvalidInputError(
            f"{field} has {length} tokens, {limits.base_model} reads at most {limits.context}; shorten or split it",
            field=field,
            index=index,
        )


def _check_tensor(limits: Limits, name: str, tensor: TensorData, field: str, index: int) -> None:
    # check_data has compared each shape with that of target_tokens, so one look at the dimensions is enough here.
    if len(tensor.full_shape) not in (1, 2) or 0 in tensor.full_shape:
        raise InvalidInputError(
            f"{field} has shape {list(tensor.full_shape)}; it must be [N], or [N, K] for K candidate targets",
            field=field,
            index=index,
        )
    if name == "target_tokens":
        _check_ids(limits, tensor.buffer, field, index)


def _check_mask(datum: Datum, index: int) -> None:
    mask = datum.loss_fn_inputs.get("sequence_ratio_mask")
    if mask is not None and not any(mask.data) and any(datum.loss_fn_inputs["advantages"].data):
        field = f"data[{index}].loss_fn_inputs['sequence_ratio_mask']"
        raise InvalidInputError(
            f"{field} marks no token, so the advantages have no ratio; mark the sampled tokens, or leave it out",
            field=field,
            index=index,
        )


def _at_most(field: str, value: int, limit: int) -> None:
    if value > limit:
        raise InvalidInputError(f"{field} is {value}; at most {limit} fit one request, send several", field=field)


def _check_stop(limits: Limits, stop: str | Sequence[str] | Sequence[int] | None) -> None:
    field = "sampling_params.stop"
    stops = [stop] if isinstance(stop, str) else list(stop or ())
    texts = [item for item in stops if isinstance(item, str)]
    if "" in texts:
        raise InvalidInputError(f"{field} holds an empty text; leave it out, or pass [] to never stop", field=field)
    if texts and not limits.has_tokenizer:
        raise InvalidInputError(
            f"{field} holds texts, {limits.base_model} came without a tokenizer; pass token ids", field=field
        )
    _check_ids(limits, [item for item in stops if not isinstance(item, str)], field, None)


def _check_last_n(request: SampleRequest, length: int) -> None:
    last_n, field = request.prompt_logprobs_last_n, "prompt_logprobs_last_n"
    if last_n is None:
        return
    if not request.prompt_logprobs:
        raise InvalidInputError(f"{field} needs prompt_logprobs", field=field)
    if last_n > length - 1:
        raise InvalidInputError(
            f"{field} is {last_n}; a prompt of {length} tokens has {length - 1} that can be scored", field=field
        )


def _check_targets(limits: Limits, target: TensorData | None, length: int) -> None:
    field = "target_prompt_logprobs"
    if target is None:
        return
    if target.dtype != "int64" or target.full_shape[:-1] != (length - 1,):
        raise InvalidInputError(
            f"{field} must be int64 of shape [{length - 1}, K], a row for each prompt token but the first; got "
            f"{target.dtype} of shape {list(target.full_shape)}",
            field=field,
        )
    _check_ids(limits, [token for token in target.data if token != -1], field, None)
