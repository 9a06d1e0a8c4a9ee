"""What can be asked about a prompt, answered from the logits after each of its tokens."""

from __future__ import annotations

from typing import Any

import torch

from tinkex.local.engine.drawing import Drawing, dice
from tinkex.types import PromptAltTokens, SampleRequest, SamplingParams, TensorData

__all__ = ["answer_prompt", "asks_about_prompt", "likeliest"]

_ALTERNATIVES = 2**32
"""Takes the place of a sample's number in the dice for other tokens, so that they are not those of a sample."""
_AT_ONCE = 64
"""Positions drawn for at once; drawing works in float64 over the whole vocabulary."""


def asks_about_prompt(request: SampleRequest) -> bool:
    """Return True if a request needs more of its prompt than the logits after the last token."""
    return bool(
        request.prompt_logprobs
        or request.topk_prompt_logprobs
        or request.prompt_alt_tokens_k
        or request.target_prompt_logprobs is not None
    )


def answer_prompt(request: SampleRequest, prompt: list[int], logits: torch.Tensor) -> dict[str, Any] | None:
    """Answer the questions of a request about its prompt.

    Args:
        request: Which questions.
        prompt: The N tokens of the prompt.
        logits: ``[N, vocabulary]``, after each of its tokens.

    Returns:
        Fields of the :class:`~tinkex.types.SampleResponse`; None if the model's logprobs are not finite.
    """
    logprobs = torch.log_softmax(logits[:-1].float(), -1)
    if not bool(logprobs.isfinite().any(-1).all()):
        return None
    first = len(prompt) - (request.prompt_logprobs_last_n or len(prompt) - 1)
    answers: dict[str, Any] = {}
    if request.prompt_logprobs:
        following = torch.tensor(prompt[1:], device=logits.device, dtype=torch.int64).unsqueeze(1)
        answers["prompt_logprobs"] = [None] * first + logprobs.gather(-1, following)[first - 1 :, 0].tolist()
    if request.topk_prompt_logprobs:
        rows = likeliest(logprobs[first - 1 :], request.topk_prompt_logprobs)
        answers["topk_prompt_logprobs"] = [None] * first + rows
    if request.target_prompt_logprobs is not None:
        answers["target_prompt_logprobs"] = _targets(request.target_prompt_logprobs, logprobs)
    if request.prompt_alt_tokens_k:
        answers["prompt_alt_tokens"] = _alternatives(request, logits[:-1])
    return answers


def likeliest(logprobs: torch.Tensor, k: int) -> list[list[tuple[int, float]]]:
    """Return the k most likely (token, logprob) pairs of each row of ``[rows, vocabulary]``."""
    best, tokens = logprobs.topk(min(k, logprobs.shape[-1]))
    return [list(zip(*row, strict=True)) for row in zip(tokens.tolist(), best.tolist(), strict=True)]


def _targets(asked: TensorData, logprobs: torch.Tensor) -> TensorData:
    """Look up the logprobs of the tokens asked about, in the layout of the question; 0 where that is -1."""
    tokens = torch.tensor(asked.data, dtype=torch.int64)
    places = torch.arange(asked.full_shape[0])
    if asked.is_sparse:
        rows = places.repeat_interleave(torch.tensor(asked.sparse_crow_indices).diff())
    else:
        rows = places.repeat_interleave(asked.full_shape[1])
    found = logprobs[rows.to(logprobs.device), tokens.clamp(min=0).to(logprobs.device)].cpu()
    return TensorData(
        data=torch.where(tokens < 0, torch.zeros_like(found), found),
        dtype="float32",
        shape=asked.full_shape,
        sparse_crow_indices=asked.sparse_crow_indices,
        sparse_col_indices=asked.sparse_col_indices,
    )


def _alternatives(request: SampleRequest, logits: torch.Tensor) -> PromptAltTokens:
    """Draw k other tokens for each place, each on its own, at the temperature of the request."""
    params, k = request.sampling_params, request.prompt_alt_tokens_k
    chances = dice(params.seed, _ALTERNATIVES).random((len(logits), k))
    plain = SamplingParams(temperature=params.temperature)
    tokens = torch.zeros(chances.shape, dtype=torch.int64)
    logprobs = torch.zeros(chances.shape)
    for start in range(0, len(logits), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        drawing = Drawing.of([plain] * len(logits[some]), logits.shape[-1], logits.device)
        for column in range(k):
            drawn, scores = drawing.draw(logits[some], chances[some, column].tolist())
            tokens[some, column], logprobs[some, column] = torch.tensor(drawn), torch.tensor(scores)
    return PromptAltTokens(tokens=TensorData.from_torch(tokens), logprobs=TensorData.from_torch(logprobs))
