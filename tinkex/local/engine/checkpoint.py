"""An adapter as files: readable by PEFT, never pickled.

::

    adapter_model.safetensors   the weights            } PEFT's own two files: vLLM, SGLang and
    adapter_config.json         PEFT's settings        } PeftModel.from_pretrained read them
    optimizer.safetensors       moments of AdamW, if asked for
    tinkex.json                 what was trained, from which base model; steps of the optimizer
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tinkex.errors import InvalidInputError
from tinkex.local.engine.adamw import AdamW
from tinkex.local.engine.bases import ALPHA, Adapter
from tinkex.types import LoraConfig, WeightsInfoResponse

__all__ = ["CARD", "Card", "read_card", "read_optimizer", "read_weights", "require_same", "write"]

CARD = "tinkex.json"
_WEIGHTS = "adapter_model.safetensors"
_OPTIMIZER = "optimizer.safetensors"
_MOMENTS = ("mean", "square")
_FLAGS = ("train_attn", "train_mlp", "train_unembed")


@attrs.frozen(kw_only=True, slots=True)
class Card:
    """What ``tinkex.json`` says.

    Attributes:
        base_model: Name of the model that the adapter belongs to.
        lora: What the adapter changes; the seed is that of its initial weights.
        optimizer_steps: How many steps the saved optimizer has taken, None if it was not saved.
        alpha: Scale of the adapter.
    """

    base_model: str
    lora: LoraConfig
    optimizer_steps: int | None
    alpha: int = ALPHA

    def info(self) -> WeightsInfoResponse:
        """Return this in the words of the API."""
        flags = {flag: getattr(self.lora, flag) for flag in _FLAGS}
        return WeightsInfoResponse(base_model=self.base_model, is_lora=True, lora_rank=self.lora.rank, **flags)


def write(folder: Path, base_model: str, adapter: Adapter, optimizer: AdamW | None) -> None:
    """Write an adapter, and the state of its optimizer if there is one, into an existing folder.

    Raises:
        OSError: A file cannot be written.
    """
    save_file(_portable(adapter.parameters), folder / _WEIGHTS, metadata={"format": "pt"})
    adapter.peft_config.save_pretrained(str(folder))
    if optimizer is not None:
        named = {kind: adapter.named(getattr(optimizer, kind)) for kind in _MOMENTS}
        moments = {f"{kind}/{path}": part for kind, parts in named.items() for path, part in parts.items()}
        save_file(_portable(moments), folder / _OPTIMIZER)
    card = Card(
        base_model=base_model,
        lora=adapter.lora,
        optimizer_steps=None if optimizer is None else optimizer.steps,
    )
    text = json.dumps({"format": 1, **attrs.asdict(card)}, indent=2)
    (folder / CARD).write_text(text + "\n", encoding="utf-8")


def read_card(folder: Path) -> Card:
    """Read what a saved adapter is.

    Raises:
        InvalidInputError: The folder holds no adapter that this engine saved.
    """
    try:
        fields = json.loads((folder / CARD).read_text(encoding="utf-8"))
        if fields.pop("format") != 1:
            raise ValueError("it was written by a newer version")
        return Card(**{**fields, "lora": LoraConfig(**fields["lora"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"there is no readable checkpoint in {folder.name!r}: {error}", field="path") from error


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Read the adapter's weights, by path in the PEFT file.

    Raises:
        InvalidInputError: The file is missing or damaged.
    """
    return _read(folder / _WEIGHTS)


def read_optimizer(folder: Path, card: Card, adapter: Adapter) -> AdamW:
    """Read the optimizer's state.

    Args:
        folder: The checkpoint.
        card: What its ``tinkex.json`` says.
        adapter: What the optimizer will change.

    Returns:
        An optimizer that goes on where the saved one was.

    Raises:
        InvalidInputError: The checkpoint has no optimizer state, or one of another shape.
    """
    if card.optimizer_steps is None:
        raise InvalidInputError(
            "this checkpoint was saved without the optimizer's state; load it without (optimizer=false), or "
            "save with save_state",
            field="optimizer",
        )
    saved = _read(folder / _OPTIMIZER)
    optimizer = AdamW(adapter.flat())
    optimizer.steps = card.optimizer_steps
    for kind in _MOMENTS:
        own = {path[len(kind) + 1 :]: part for path, part in saved.items() if path.startswith(kind + "/")}
        setattr(optimizer, kind, adapter.joined(own))
    return optimizer


def require_same(card: Card, base_model: str, lora: LoraConfig | None = None) -> None:
    """Refuse to load an adapter into a model that was made differently.

    Args:
        card: What is to be loaded.
        base_model: The model's base.
        lora: The model's settings, None if it takes them from the checkpoint.

    Raises:
        InvalidInputError: Base model, rank or what is trained differ; the message has both values.
    """
    pairs: dict[str, tuple[Any, Any]] = {"base_model": (card.base_model, base_model), "alpha": (card.alpha, ALPHA)}
    if lora is not None:
        pairs |= {name: (getattr(card.lora, name), getattr(lora, name)) for name in ("rank", *_FLAGS)}
    for name, (saved, present) in pairs.items():
        if saved != present:
            raise InvalidInputError(
                f"{name} is {saved!r} in the checkpoint and {present!r} in the model; create the model with "
                f"{name}={saved!r}",
                field=name,
            )


def _portable(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {path: tensor.detach().cpu().clone() for path, tensor in tensors.items()}


def _read(file: Path) -> dict[str, torch.Tensor]:
    try:
        tensors: dict[str, torch.Tensor] = load_file(file)
    except (OSError, SafetensorError) as error:
        raise InvalidInputError(f"{file.name} of the checkpoint cannot be read: {error}", field="path") from error
    return tensors
