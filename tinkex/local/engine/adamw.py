"""AdamW, with hyper-parameters that may differ from step to step."""

from __future__ import annotations

import math

import torch

from tinkex.types import AdamParams

__all__ = ["AdamW"]


class AdamW:
    """Adam with decoupled weight decay, as ``torch.optim.AdamW`` computes it, over one flat vector.

    Source: Loshchilov & Hutter, arXiv:1711.05101.

    Attributes:
        steps: How many steps have been taken.
        mean: First moment of the gradient.
        square: Second moment of the gradient.
    """

    def __init__(self, values: torch.Tensor) -> None:
        """Begin with moments of zero for a vector like ``values``."""
        self.steps = 0
        self.mean = torch.zeros_like(values)
        self.square = torch.zeros_like(values)

    def step(self, values: torch.Tensor, gradient: torch.Tensor, settings: AdamParams) -> torch.Tensor:
        """Take one step.

        Args:
            values: The parameters.
            gradient: Their gradient; ``settings.grad_clip_norm`` is the caller's business.
            settings: Hyper-parameters of this step.

        Returns:
            The new parameters.

        Raises:
            FloatingPointError: A parameter would not be finite afterwards. The moments are as before.
        """
        beta1, beta2, rate = settings.beta1, settings.beta2, settings.learning_rate
        steps = self.steps + 1
        mean = self.mean.lerp(gradient, 1 - beta1)
        square = (self.square * beta2).addcmul_(gradient, gradient, value=1 - beta2)
        scale = (square.sqrt() / math.sqrt(1 - beta2**steps)).add_(settings.eps)
        decayed = values * (1 - rate * settings.weight_decay)
        stepped = decayed.addcdiv_(mean, scale, value=-rate / (1 - beta1**steps))
        if not bool(stepped.isfinite().all()):
            raise FloatingPointError("a parameter would not be finite after this step")
        self.steps, self.mean, self.square = steps, mean, square
        return stepped
