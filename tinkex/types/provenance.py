"""Where the tokens of a datum come from: which sequence that the server sampled, and which part of it.

The binary form carries this; servers read it for the losses that need to know what was sampled together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Union

from tinkex._scalars import whole_argument
from tinkex.errors import InvalidInputError

__all__ = ["PromptProvenanceSpan", "ProvenanceSpans", "SampledProvenanceSpan"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Span:
    sequence_id: str
    offset: int = 0
    length: int

    def __post_init__(self) -> None:
        """Refuse what no sequence has.

        Raises:
            InvalidInputError: The id is empty, or a number is not a whole number of at least 0.
        """
        named: Any = self.sequence_id
        if not isinstance(named, str) or not named:
            raise InvalidInputError(f"sequence_id must be a non-empty text, got {named!r:.60}", field="sequence_id")
        for name in ("offset", "length"):
            object.__setattr__(self, name, whole_argument(getattr(self, name), name, 0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptProvenanceSpan(_Span):
    """A run of tokens that were part of the prompt of a sample.

    A dataclass, because programs written for the official SDK call ``dataclasses.replace`` on it.

    Attributes:
        sequence_id: The sequence, as ``SampledSequence.sequence_id`` names it.
        offset: Where the run starts in the prompt.
        length: How many tokens it has.
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampledProvenanceSpan(_Span):
    """A run of tokens that were sampled; fields as in :class:`PromptProvenanceSpan`, within the sampled tokens."""


ProvenanceSpans = list[Union[PromptProvenanceSpan, SampledProvenanceSpan]]
"""Runs that cover a field from its first token to its last, each token once."""


def copy_spans(spans: Iterable[Any] | None, field: str) -> ProvenanceSpans | None:
    """Copy a list of runs.

    Raises:
        InvalidInputError: Something in it is no run.
    """
    copied = None if spans is None else list(spans)
    for index, span in enumerate(copied or ()):
        if not isinstance(span, _Span):
            raise InvalidInputError(f"{field}[{index}] must be a provenance span, got {span!r:.60}", field=field)
    return copied


def check_cover(spans: ProvenanceSpans, length: int, field: str) -> None:
    """Check that the runs cover a field.

    Raises:
        InvalidInputError: They are longer or shorter than it.
    """
    covered = sum(span.length for span in spans)
    if covered != length:
        raise InvalidInputError(f"{field} cover {covered} tokens, and there are {length}", field=field)
