"""Optimizers: which one a model has, and the hyper-parameters of a step of those that are not AdamW."""

from __future__ import annotations

from typing import Literal, Union

import attrs

from tinkex._scalars import plain_number
from tinkex.types._base import Value, kind, number
from tinkex.types.unions import Unrecognized

__all__ = ["AdamOptimizerConfig", "DimuonOptimizerConfig", "DimuonParams", "OptimizerConfig"]


@attrs.frozen(kw_only=True, slots=True, repr=False)
class AdamOptimizerConfig(Value):
    """The model is trained with AdamW, which is what a model gets unless told otherwise."""

    type: Literal["adamw"] = kind("adamw")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class DimuonOptimizerConfig(Value):
    """The model is trained with Dimuon, on servers that have it."""

    type: Literal["dimuon"] = kind("dimuon")
    version: Literal[1] = 1


OptimizerConfig = Union[AdamOptimizerConfig, DimuonOptimizerConfig, Unrecognized]
"""Family of the optimizer, chosen when a model is made."""


@attrs.frozen(kw_only=True, slots=True, repr=False)
class DimuonParams(Value):
    """Hyper-parameters of one Dimuon step.

    Attributes:
        learning_rate: Step size, at least 0.
        grad_clip_norm: Largest global norm of the gradient; 0 and less does not clip.
        beta1: Decay of the momentum, in [0, 1).
    """

    learning_rate: float = attrs.field(converter=plain_number, validator=number(minimum=0))
    grad_clip_norm: float = attrs.field(default=0.0, converter=plain_number, validator=number())
    beta1: float = attrs.field(default=0.9, converter=plain_number, validator=number(minimum=0, below=1))
    type: Literal["dimuon"] = kind("dimuon")
