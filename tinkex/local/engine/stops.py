"""When a sampled sequence ends before its limit."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import attrs

__all__ = ["Stops"]

# Decoders may treat the first tokens of a window specially (a stripped space, half a character).
_MARGIN = 8


@attrs.frozen(slots=True, eq=False)
class Stops:
    """Stop tokens and stop texts of one request; what is given replaces the model's end tokens.

    Attributes:
        tokens: Ids that end a sequence.
        texts: Texts that end it as soon as they are complete.
        tokenizer: What decodes, None without texts.
    """

    tokens: frozenset[int]
    texts: tuple[str, ...] = ()
    tokenizer: Any = None

    @classmethod
    def of(cls, stop: str | Sequence[str] | Sequence[int] | None, base: Any) -> Stops:
        """Read ``SamplingParams.stop``: None for the end tokens, an empty list for no stop at all."""
        if stop is None:
            return cls(base.end_tokens)
        items: list[str | int] = [stop] if isinstance(stop, str) else list(stop)
        texts = tuple(item for item in items if isinstance(item, str))
        ids = frozenset(item for item in items if not isinstance(item, str))
        return cls(ids, texts, base.tokenizer if texts else None)

    def ended(self, tokens: Sequence[int]) -> bool:
        """Tell whether the last of ``tokens`` completes a stop; they are what was generated so far."""
        if tokens[-1] in self.tokens:
            return True
        if not self.texts:
            return False
        tail = self._decode(tokens[-self._window(self.texts) :])
        return any(text in tail for text in self.texts)

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    @staticmethod
    def _window(texts: Collection[str]) -> int:
        # Each token is at least one byte of text, so the longest stop spans at most this many.
        return max(len(text.encode()) for text in texts) + _MARGIN
