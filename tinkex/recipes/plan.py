"""What a run will do at each step, as pure functions of its settings: so a resumed run does the same."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import attrs

from tinkex._scalars import plain_number
from tinkex.data import TINY_NAME, canonical_name
from tinkex.errors import InvalidInputError
from tinkex.recipes.chat_data import Conversation, Message

__all__ = ["Plan", "SFTSettings", "split_holdout"]

DEFAULTS: dict[str, dict[str, Any]] = {
    TINY_NAME: {"rank": 32, "learning_rate": 5e-3, "batch_size": 32, "steps": 100},
}
"""Settings that were tuned for one base model."""

OTHER_DEFAULTS: dict[str, Any] = {"rank": 32, "learning_rate": 5e-4, "batch_size": 32, "epochs": 1.0}
"""Settings for all other base models. LoRA wants a rate about ten times that of full fine-tuning."""


def _positive(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not (_is_number(value) and value > 0):
        raise InvalidInputError(f"{attribute.name} must be above 0, got {value!r}", field=attribute.name)


def _not_negative(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not (_is_number(value) and value >= 0):
        raise InvalidInputError(f"{attribute.name} must be at least 0, got {value!r}", field=attribute.name)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@attrs.frozen(kw_only=True, slots=True)
class SFTSettings:
    """What makes a supervised run repeatable; everything in it is stored in the run folder.

    Attributes:
        base_model: Name of the model to start from.
        rank: Rank of the LoRA adapter.
        learning_rate: Rate of the first step; it falls in a straight line to 0 after the last.
        batch_size: Examples in a step; at most as many as there are.
        steps: How many steps; None lets ``epochs`` decide.
        epochs: How many times each example is seen, also a fraction; used if ``steps`` is None.
        holdout: How many conversations to keep out of the training and ask afterwards; None takes 100, or a
            tenth of a small file.
        max_tokens: Longest answer to sample, in tokens; None takes the longest expected one and a few more.
        seed: Decides the first adapter, which conversations are held out and the order of the others.
        save_every: Save a checkpoint each time this many steps are done; 0 saves at the end only.
        evaluate: Ask the held-out prompts before and after.
        skip_long: Leave out examples that do not fit the context of the model, instead of refusing the file.
    """

    base_model: str
    rank: int = attrs.field(default=32, converter=plain_number, validator=_positive)
    learning_rate: float = attrs.field(default=5e-4, converter=plain_number, validator=_positive)
    batch_size: int = attrs.field(default=32, converter=plain_number, validator=_positive)
    steps: int | None = attrs.field(default=None, converter=plain_number, validator=_positive)
    epochs: float | None = attrs.field(default=None, converter=plain_number, validator=_positive)
    holdout: int | None = attrs.field(default=None, converter=plain_number, validator=_not_negative)
    max_tokens: int | None = attrs.field(default=None, converter=plain_number, validator=_positive)
    seed: int = attrs.field(default=0, converter=plain_number)
    save_every: int = attrs.field(default=50, converter=plain_number, validator=_not_negative)
    evaluate: bool = True
    skip_long: bool = False

    def __attrs_post_init__(self) -> None:
        """Refuse two lengths, or none."""
        if (self.steps is None) == (self.epochs is None):
            raise InvalidInputError("give either steps or epochs", field="steps")

    @classmethod
    def for_model(cls, base_model: str, **given: Any) -> SFTSettings:
        """Fill in the defaults of a base model.

        Args:
            base_model: Name of the model.
            **given: Fields of this class; None means "not given".

        Returns:
            The settings.
        """
        values = dict(DEFAULTS.get(canonical_name(base_model), OTHER_DEFAULTS))
        chosen = {name: value for name, value in given.items() if value is not None}
        if "steps" in chosen or "epochs" in chosen:
            values = {name: value for name, value in values.items() if name not in ("steps", "epochs")}
        return cls(base_model=base_model, **{**values, **chosen})


@attrs.frozen(kw_only=True, slots=True)
class Plan:
    """Which examples each step sees, and its learning rate.

    Attributes:
        count: Number of training examples.
        steps: Number of steps.
        batch_size: Examples in a step.
        learning_rate: Rate of the first step.
        seed: Decides the order.
    """

    count: int
    steps: int
    batch_size: int
    learning_rate: float
    seed: int

    @classmethod
    def of(cls, settings: SFTSettings, count: int) -> Plan:
        """Plan a run over ``count`` training examples, at least one."""
        batch_size = min(settings.batch_size, count)
        steps = settings.steps or max(1, round((settings.epochs or 1) * count / batch_size))
        return cls(
            count=count,
            steps=steps,
            batch_size=batch_size,
            learning_rate=settings.learning_rate,
            seed=settings.seed,
        )

    def batch(self, step: int) -> list[int]:
        """Return the positions of the examples of a step, counted from 0.

        The shuffled epochs follow one another without a gap: each batch is full, and no example is seen an
        (n+1)th time before every other was seen n times.
        """
        start = step * self.batch_size
        places = (divmod(place, self.count) for place in range(start, start + self.batch_size))
        return [_epoch_order(self.seed, epoch, self.count)[at] for epoch, at in places]

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0: a straight line to 0 after the last."""
        return self.learning_rate * (1 - step / self.steps)


@lru_cache(maxsize=4)
def _epoch_order(seed: int, epoch: int, count: int) -> Sequence[int]:
    order = list(range(count))
    random.Random(f"order/{seed}/{epoch}").shuffle(order)  # noqa: S311 - not for secrets
    return order


def split_holdout(
    conversations: Sequence[Conversation], holdout: int | None, seed: int
) -> tuple[list[Conversation], list[Conversation]]:
    """Split into conversations to learn and conversations to keep for later questions.

    No prompt is in both parts: conversations that share one are kept together.

    Args:
        conversations: All of them.
        holdout: How many to keep; None keeps 100, or a tenth of a small file.
        seed: Decides which.

    Returns:
        The training part and the held-out part, each in the order of the file.

    Raises:
        InvalidInputError: Nothing would be left to learn.
    """
    wanted = min(100, len(conversations) // 10) if holdout is None else holdout
    if wanted >= len(conversations):
        raise InvalidInputError(
            f"holdout is {wanted}, but there are only {len(conversations)} conversations; "
            "keep fewer (0 trains on all of them)",
            field="holdout",
        )
    groups: dict[tuple[Message, ...], list[int]] = {}
    for position, conversation in enumerate(conversations):
        groups.setdefault(conversation.prompt, []).append(position)
    shuffled = list(groups.values())
    random.Random(f"holdout/{seed}").shuffle(shuffled)  # noqa: S311 - not for secrets
    kept: set[int] = set()
    for group in shuffled:
        if len(kept) + len(group) <= wanted and len(kept) + len(group) < len(conversations):
            kept.update(group)
    train = [conversation for position, conversation in enumerate(conversations) if position not in kept]
    return train, [conversations[position] for position in sorted(kept)]
