"""From logits to one token for each row."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np
import torch

from tinkex.types import SamplingParams

__all__ = ["Drawing", "dice"]


def dice(seed: int | None, sample: int) -> np.random.Generator:
    """Return the random numbers of one row: fixed by the seed and the number of the sample, whatever else runs."""
    return np.random.default_rng(None if seed is None else [seed % 2**64, sample])


@attrs.frozen(slots=True, eq=False)
class Drawing:
    """How each row of a batch is drawn; every tensor has one entry for each row.

    Attributes:
        greedy: True where the most likely token is taken.
        temperature: Divisor of the logits, 1 where greedy.
        filtered: Rows with top_k or top_p.
        top_k: Of the filtered rows, ``[F, 1]``; the size of the vocabulary where it is off.
        top_p: Of the filtered rows, ``[F, 1]``.
    """

    greedy: torch.Tensor
    temperature: torch.Tensor
    filtered: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor

    @classmethod
    def of(cls, params: Sequence[SamplingParams], vocab: int, device: torch.device) -> Drawing:
        """Collect the parameters of the rows."""
        greedy = [item.temperature == 0 for item in params]
        filtered = [
            row for row, item in enumerate(params) if not greedy[row] and (0 < item.top_k < vocab or item.top_p < 1)
        ]
        top_k = [[params[row].top_k if params[row].top_k > 0 else vocab] for row in filtered]
        top_p = [[params[row].top_p] for row in filtered]
        return cls(
            torch.tensor(greedy, device=device),
            torch.tensor([[item.temperature or 1.0] for item in params], dtype=torch.float64, device=device),
            torch.tensor(filtered, dtype=torch.int64, device=device),
            torch.tensor(top_k, dtype=torch.int64, device=device),
            torch.tensor(top_p, dtype=torch.float64, device=device),
        )

    def draw(self, logits: torch.Tensor, chances: Sequence[float]) -> tuple[list[int], list[float]]:
        """Draw a token for each row.

        The inverse of the cumulative distribution, in float64 and in the order of token ids, so that a row's token
        depends on its own logits and its own chance only.

        Args:
            logits: ``[rows, vocabulary]``.
            chances: A number in [0, 1) for each row.

        Returns:
            The tokens, and their logprobs under the model itself: before temperature, top_k and top_p.
        """
        logprobs = torch.log_softmax(logits.float(), -1)
        best, mode = logprobs.max(-1, keepdim=True)
        # Subtracting the best first keeps a temperature near 0 from overflowing.
        weights = ((logprobs.double() - best.double()) / self.temperature).exp()
        if len(self.filtered):
            weights[self.filtered] = self._restricted(weights[self.filtered])
        sums = weights.cumsum(-1)
        total = sums[:, -1:]
        # Rounding could lift chance * total to the total, beyond the last token.
        aim = (torch.tensor(chances, device=logits.device).unsqueeze(1) * total).minimum(total.nextafter(total * 0))
        drawn = torch.searchsorted(sums, aim, right=True).clamp_(max=logits.shape[-1] - 1)
        tokens = torch.where(self.greedy.unsqueeze(1), mode, drawn)
        return tokens[:, 0].tolist(), logprobs.gather(-1, tokens)[:, 0].tolist()

    def _restricted(self, weights: torch.Tensor) -> torch.Tensor:
        """Zero what top_k, and then top_p of what that leaves, exclude."""
        ordered, order = weights.sort(dim=-1, descending=True, stable=True)
        ordered = ordered.where(torch.arange(weights.shape[-1], device=weights.device) < self.top_k, 0.0)
        sums = ordered.cumsum(-1)
        ordered = ordered.where(sums - ordered < self.top_p * sums[:, -1:], 0.0)
        return torch.zeros_like(weights).scatter_(-1, order, ordered)
