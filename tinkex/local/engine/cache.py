"""Keys and values of the tokens read so far."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

__all__ = ["growing_cache"]

_LEAST_ROOM = 64


class GrowingLayer(DynamicLayer):  # type: ignore[misc]  # transformers has no types
    """A ``DynamicLayer`` with spare room, so that a new token does not copy all the old ones."""

    is_initialized: bool
    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self) -> None:
        """Begin with no room."""
        super().__init__()
        self._used = self._room = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_options: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the states of new tokens, each ``[rows, heads, new tokens, size]``, and return all."""
        if not self.is_initialized:
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
        start = self._used
        end = start + key_states.shape[-2]
        if end > self._room:
            self._room = end + max(_LEAST_ROOM, end // 2)
            self._all_keys = _moved(self.keys, key_states, start, self._room)
            self._all_values = _moved(self.values, value_states, start, self._room)
        self._all_keys[:, :, start:end] = key_states
        self._all_values[:, :, start:end] = value_states
        self.keys, self.values, self._used = self._all_keys[:, :, :end], self._all_values[:, :, :end], end
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep, repeat or reorder rows."""
        self.keys, self.values = self.keys[indices], self.values[indices]
        self._room = 0


def growing_cache(config: Any) -> DynamicCache:
    """Return the cache that a model of this configuration needs; sliding windows stay as they are."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def _moved(old: torch.Tensor, like: torch.Tensor, used: int, room: int) -> torch.Tensor:
    new = like.new_empty((*like.shape[:2], room, like.shape[3]))
    if used:
        new[:, :, :used] = old
    return new
