"""The losses of the API, each as one line of a table.

Sources: the published formulas (see ``tinkex.types.training.LOSS_INPUTS``); PPO's clipped objective is Schulman et
al., arXiv:1707.06347; CISPO is MiniMax, arXiv:2506.13585; DRO is Richemond et al., arXiv:2405.19107; GSPO, in the form
with a ratio for each token, is Zheng et al., arXiv:2507.18071; StableReinforce is Zhang et al., arXiv:2505.02835.

The hosted service publishes the formula of ``gspo`` but not that of ``stable_reinforce``, which it computes with the
help of figures kept from sampling: this is the paper of that name, and its numbers may differ from the service's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import attrs

from tinkex.errors import InvalidInputError
from tinkex.types.training import LOSS_INPUTS, check_loss

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LOSSES", "Loss", "resolve"]

Formula = Callable[["Tensor", Mapping[str, "Tensor"], Mapping[str, float]], "Tensor"]


@attrs.frozen(kw_only=True, slots=True)
class Loss:
    """One loss.

    Attributes:
        output_type: What ``ForwardBackwardOutput.loss_fn_output_type`` says.
        formula: Maps the logprobs of the targets, the inputs (all of one shape) and the settings to the loss of each
            element. The loss of a batch is their sum.
        fills: Value of an optional input that was not given, or the name of the input that stands in for it.
        settings: Defaults of ``loss_fn_config``.
        by_datum: The formula is for one datum at a time, because its tokens depend on each other.
    """

    output_type: str
    formula: Formula
    fills: Mapping[str, float | str] = attrs.field(factory=dict)
    settings: Mapping[str, float] = attrs.field(factory=dict)
    by_datum: bool = False


def _cross_entropy(logprobs: Tensor, inputs: Mapping[str, Tensor], _: Mapping[str, float]) -> Tensor:
    return -inputs["weights"] * logprobs


def _importance_sampling(logprobs: Tensor, inputs: Mapping[str, Tensor], _: Mapping[str, float]) -> Tensor:
    return -_ratio(logprobs, inputs) * inputs["advantages"]


def _ppo(logprobs: Tensor, inputs: Mapping[str, Tensor], settings: Mapping[str, float]) -> Tensor:
    return _clipped(_ratio(logprobs, inputs), inputs["advantages"], settings)


def _cispo(logprobs: Tensor, inputs: Mapping[str, Tensor], settings: Mapping[str, float]) -> Tensor:
    return -_clip(_ratio(logprobs, inputs), settings).detach() * logprobs * inputs["advantages"]


def _dro(logprobs: Tensor, inputs: Mapping[str, Tensor], settings: Mapping[str, float]) -> Tensor:
    drift = logprobs - inputs["logprobs"]
    return settings["beta"] / 2 * drift * drift - logprobs * inputs["advantages"]


def _gspo(logprobs: Tensor, inputs: Mapping[str, Tensor], settings: Mapping[str, float]) -> Tensor:
    """Every token has the value of the ratio of its sequence, and the gradient of its own logprob."""
    marked, fixed = inputs["sequence_ratio_mask"] != 0, logprobs.detach()
    # Where no token is marked every advantage is 0, so the ratio does not matter.
    drift = (fixed - inputs["logprobs"])[marked].mean() if bool(marked.any()) else fixed.new_zeros(())
    return _clipped((drift + logprobs - fixed).exp(), inputs["advantages"], settings)


def _stable_reinforce(logprobs: Tensor, inputs: Mapping[str, Tensor], settings: Mapping[str, float]) -> Tensor:
    """Drop outliers, clip the logarithm of the ratio before it can overflow, then as PPO; a penalty if asked for."""
    advantages = inputs["advantages"]
    kept = advantages.where(advantages.abs() <= _LARGEST_ADVANTAGE, 0.0)
    drift = (logprobs - inputs["logprobs"]).clamp(-_LARGEST_DRIFT, _LARGEST_DRIFT)
    # The estimate of the divergence that is never negative, k3 of Schulman's "Approximating KL Divergence". Not for
    # tokens that do not count: those of the prompt have 0 for a logprob, which is no logprob of theirs.
    divergence = ((-drift).exp() + drift - 1).where(kept != 0, 0.0)
    return _clipped(drift.exp(), kept, settings) + settings["kl_coeff"] * divergence


def _clipped(ratio: Tensor, advantages: Tensor, settings: Mapping[str, float]) -> Tensor:
    return -(ratio * advantages).minimum(_clip(ratio, settings) * advantages)


def _ratio(logprobs: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    return (logprobs - inputs["logprobs"]).exp()


def _clip(ratio: Tensor, settings: Mapping[str, float]) -> Tensor:
    return ratio.clamp(settings["clip_low_threshold"], settings["clip_high_threshold"])


_LARGEST_DRIFT = math.log(1e3)
_LARGEST_ADVANTAGE = 3.0
"""The paper's rule of three standard deviations, for advantages that the caller has standardised."""

LOSSES: dict[str, Loss] = {
    "cross_entropy": Loss(output_type="CrossEntropyLossReturn", formula=_cross_entropy, fills={"weights": 1.0}),
    "importance_sampling": Loss(output_type="ImportanceSamplingLossReturn", formula=_importance_sampling),
    "ppo": Loss(
        output_type="PPOLossReturn",
        formula=_ppo,
        settings={"clip_low_threshold": 0.8, "clip_high_threshold": 1.2},
    ),
    "cispo": Loss(
        output_type="CISPOLossReturn",
        formula=_cispo,
        settings={"clip_low_threshold": 0.0, "clip_high_threshold": 4.0},
    ),
    # The paper leaves beta to the user and the hosted service does not publish a default.
    "dro": Loss(output_type="DROLossReturn", formula=_dro, settings={"beta": 0.05}),
    # The only published figures: 3e-4 below 1 and 4e-4 above it, section 5.1 of the paper. A mean of logarithms moves
    # far less than the logarithm of a single token, so PPO's thresholds would never be reached.
    "gspo": Loss(
        output_type="GSPOLossReturn",
        formula=_gspo,
        fills={"sequence_ratio_mask": "advantages"},
        settings={"clip_low_threshold": 1 - 3e-4, "clip_high_threshold": 1 + 4e-4},
        by_datum=True,
    ),
    "stable_reinforce": Loss(
        output_type="StableReinforceLossReturn",
        formula=_stable_reinforce,
        settings={"clip_low_threshold": 0.8, "clip_high_threshold": 1.2, "kl_coeff": 0.0},
    ),
}


def resolve(loss_fn: str, loss_fn_config: Mapping[str, float | str] | None) -> tuple[Loss, dict[str, float]]:
    """Look up a loss and complete its settings.

    Args:
        loss_fn: A name out of :data:`LOSSES`.
        loss_fn_config: Settings that differ from the defaults.

    Returns:
        The loss, and all of its settings.

    Raises:
        InvalidInputError: The loss is unknown or not implemented here, or a setting is unknown, not a number, or
            leaves no room between the clip thresholds.
    """
    check_loss(loss_fn, loss_fn_config, here=True)
    if loss_fn not in LOSSES:
        raise InvalidInputError(
            f"loss_fn {loss_fn!r} is a loss of a client's own; use one of "
            f"{', '.join(LOSS_INPUTS)}, or forward_backward_custom for a loss of your own",
            field="loss_fn",
        )
    loss = LOSSES[loss_fn]
    settings = {
        **loss.settings,
        **{key: _number(key, value) for key, value in (loss_fn_config or {}).items()},
    }
    low, high = settings.get("clip_low_threshold", 0.0), settings.get("clip_high_threshold", 0.0)
    if low > high:
        raise InvalidInputError(
            f"loss_fn_config['clip_low_threshold'] is {low:g}, above clip_high_threshold {high:g}",
            field="loss_fn_config['clip_low_threshold']",
        )
    return loss, settings


def _number(key: str, value: float | str) -> float:
    field = f"loss_fn_config[{key!r}]"
    if isinstance(value, str) or abs(value) == float("inf"):
        raise InvalidInputError(f"{field} must be a finite number, got {value!r:.60}", field=field)
    return float(value)
