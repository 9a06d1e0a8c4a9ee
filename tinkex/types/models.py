"""Models: LoRA settings, creation, information, unloading."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from tinkex._scalars import plain_number
from tinkex.errors import InvalidInputError
from tinkex.types._base import ALWAYS, SEED, Value, copied_dict, optional, since, tag, text, whole
from tinkex.types.optimizers import AdamOptimizerConfig, OptimizerConfig

__all__ = [
    "CreateModelRequest",
    "CreateModelResponse",
    "GetInfoRequest",
    "GetInfoResponse",
    "LoraConfig",
    "ModelData",
    "UnloadModelRequest",
    "UnloadModelResponse",
]


@attrs.frozen(kw_only=True, slots=True, repr=False)
class LoraConfig(Value):
    """Low-rank adaptation (Hu et al., arXiv:2106.09685): what to train.

    Attributes:
        rank: Rank of the update matrices.
        seed: Makes the initial weights repeatable.
        train_unembed: Train the output projection.
        train_mlp: Train the MLP layers.
        train_attn: Train the attention layers.
    """

    rank: int = attrs.field(converter=plain_number, validator=whole(1))
    seed: int | None = attrs.field(default=None, converter=plain_number, validator=optional(SEED), metadata=ALWAYS)
    train_unembed: bool = attrs.field(default=True, metadata=ALWAYS)
    train_mlp: bool = attrs.field(default=True, metadata=ALWAYS)
    train_attn: bool = attrs.field(default=True, metadata=ALWAYS)

    def __attrs_post_init__(self) -> None:
        """Refuse a model in which nothing is trained."""
        if not (self.train_unembed or self.train_mlp or self.train_attn):
            raise InvalidInputError(
                "train_unembed, train_mlp and train_attn are all False: nothing would be trained",
                field="train_mlp",
            )


@attrs.frozen(kw_only=True, slots=True, repr=False)
class CreateModelRequest(Value):
    """Body of ``POST create_model``.

    Attributes:
        session_id: Session that the model belongs to.
        model_seq_id: Number of the model in its session, from 0.
        base_model: Name of the base model.
        user_metadata: Anything that has a JSON form.
        lora_config: What to train.
        optimizer_config: Which optimizer; AdamW if None.
    """

    session_id: str = attrs.field(validator=text)
    model_seq_id: int = attrs.field(converter=plain_number, validator=whole(0))
    base_model: str = attrs.field(validator=text)
    user_metadata: dict[str, Any] | None = copied_dict(default=None, metadata=ALWAYS)
    lora_config: LoraConfig | None = attrs.field(default=None, metadata=ALWAYS)
    optimizer_config: OptimizerConfig | None = attrs.field(default=None, metadata=since("0.30"))
    type: Literal["create_model"] = tag("create_model")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class CreateModelResponse(Value):
    """Result of create_model."""

    model_id: str
    type: Literal["create_model"] = tag("create_model")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class GetInfoRequest(Value):
    """Body of ``POST get_info``."""

    model_id: str = attrs.field(validator=text)
    type: Literal["get_info"] = tag("get_info")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class ModelData(Value):
    """What a server says of a model's base."""

    arch: str | None = None
    model_name: str | None = None
    tokenizer_id: str | None = None


@attrs.frozen(kw_only=True, slots=True, repr=False)
class GetInfoResponse(Value):
    """Result of get_info."""

    model_id: str
    model_data: ModelData
    is_lora: bool | None = None
    lora_rank: int | None = None
    model_name: str | None = None
    optimizer_config: OptimizerConfig = attrs.field(factory=AdamOptimizerConfig)
    type: Literal["get_info"] | None = tag("get_info")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class UnloadModelRequest(Value):
    """Body of ``POST unload_model``."""

    model_id: str = attrs.field(validator=text)
    type: Literal["unload_model"] = tag("unload_model")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class UnloadModelResponse(Value):
    """Result of unload_model."""

    model_id: str
    type: Literal["unload_model"] | None = tag("unload_model")
