"""A loss of the user's own that the server runs: a traced function as plain data."""

from __future__ import annotations

import re
from typing import Any, Literal

import attrs

from tinkex._scalars import plain_number
from tinkex.errors import InvalidInputError
from tinkex.types._base import Value, copied_dict, copied_list, tag, text, whole

__all__ = [
    "CreateCustomLossRequest",
    "CreateCustomLossResponse",
    "CustomLossGraph",
    "CustomLossInput",
    "CustomLossInputRank",
    "CustomLossNode",
    "CustomLossNodeOp",
]

CustomLossInputRank = Literal[0, 1, 2]
"""0 for a number, 1 for one value per target token, 2 for one row per target token."""
CustomLossNodeOp = Literal["placeholder", "get_attr", "call_function", "call_method", "call_module", "output"]

METRIC_KEY = re.compile(r"custom/[a-z0-9_./-]{1,64}:(sum|mean)")
"""Names of metrics of a custom loss: apart from those of the server, with the way in which datums are combined."""
_INPUT_NAME = re.compile(r"[a-z_][a-z0-9_]{0,63}")
MOST_INPUTS = 16


def _input_name(_: Any, attribute: attrs.Attribute[str], value: Any) -> None:
    if not isinstance(value, str) or not _INPUT_NAME.fullmatch(value):
        raise InvalidInputError(
            f"the name of an input must be 1 to 64 lower-case letters, digits or underscores, got {value!r:.80}",
            field=attribute.name,
        )


@attrs.frozen(kw_only=True, slots=True, repr=False)
class CustomLossInput(Value):
    """What the loss reads: ``logprobs``, or an entry of ``Datum.loss_fn_inputs``, and how many dimensions it has."""

    name: str = attrs.field(validator=_input_name)
    rank: CustomLossInputRank


@attrs.frozen(kw_only=True, slots=True, repr=False)
class CustomLossNode(Value):
    """One step of the function, as ``torch.fx`` records it.

    Attributes:
        op: What kind of step.
        name: Name of its value, unique in the graph.
        target: Which function, method, attribute or parameter.
        args: Its arguments: numbers, texts and lists stand for themselves, anything else is an object with one key,
            such as ``{"ref": <name of a node>}`` or ``{"float": "inf"}``.
        kwargs: Its named arguments, likewise.
    """

    op: CustomLossNodeOp
    name: str
    target: str
    args: list[Any] = attrs.field(factory=list, converter=copied_list)
    kwargs: dict[str, Any] = copied_dict(factory=dict)


@attrs.frozen(kw_only=True, slots=True, repr=False)
class CustomLossGraph(Value):
    """The steps of the function in order."""

    nodes: list[CustomLossNode]
    format: Literal[1] = 1


@attrs.frozen(kw_only=True, slots=True, repr=False)
class CreateCustomLossRequest(Value):
    """Body of ``POST create_custom_loss``.

    Attributes:
        session_id: Session that the loss belongs to.
        custom_loss_seq_id: Number of the loss in its session, from 0.
        name: What to call it.
        inputs: What it reads, at most 16, ``logprobs`` first.
        graph: The function.
    """

    session_id: str = attrs.field(validator=text)
    custom_loss_seq_id: int = attrs.field(converter=plain_number, validator=whole(0))
    name: str
    inputs: list[CustomLossInput] = attrs.field(converter=copied_list)
    graph: CustomLossGraph
    type: Literal["create_custom_loss"] = tag("create_custom_loss")

    def __attrs_post_init__(self) -> None:
        """Refuse inputs that no server takes."""
        names = [item.name for item in self.inputs]
        if not 1 <= len(names) <= MOST_INPUTS or names[0] != "logprobs":
            raise InvalidInputError(
                f"inputs must be 1 to {MOST_INPUTS}, the first of them 'logprobs', got {names!r:.200}", field="inputs"
            )


@attrs.frozen(kw_only=True, slots=True, repr=False)
class CreateCustomLossResponse(Value):
    """Result of create_custom_loss: the id to pass as ``loss_fn_config={"loss_id": ...}`` of the loss ``custom``."""

    loss_id: str
    type: Literal["create_custom_loss"] | None = tag("create_custom_loss")
