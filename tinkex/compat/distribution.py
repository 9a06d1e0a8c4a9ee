"""A distribution named ``tinker``, for programs that ask ``importlib.metadata`` for its version."""

from __future__ import annotations

import importlib.abc
import importlib.metadata
import sys
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

from tinkex.compat.modules import SDK_VERSION

__all__ = ["add", "remove"]


class _Distribution(importlib.metadata.Distribution):
    def read_text(self, filename: str) -> str | None:
        text = f"Metadata-Version: 2.1\nName: tinker\nVersion: {SDK_VERSION}\nSummary: By tinkex\n"
        return text if filename == "METADATA" else None

    def locate_file(self, path: Any) -> Any:
        return PurePath(path)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the distribution, and no modules: those are there already."""

    def find_spec(self, *_: Any) -> None:
        return None

    def find_distributions(self, context: Any = None) -> Iterable[_Distribution]:
        name = getattr(context, "name", None)
        return [_Distribution()] if name in (None, "tinker") else []


_finder = _Finder()


def add() -> None:
    """Let it be found, before one that is installed."""
    sys.meta_path.insert(0, _finder)


def remove() -> None:
    """Let it not be found any more."""
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
