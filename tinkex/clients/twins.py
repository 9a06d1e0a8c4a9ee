"""The ``_async`` twins of the clients' methods, for programs written for the official SDK.

Nothing here is asynchronous underneath: a twin waits, without blocking the event loop, for what its method does anyway.
What ``await`` gives follows the official SDK: clients and values are there; the operations of a TrainingClient are
*submitted*, and awaiting their twin gives the future, so that pipelining survives.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["async_twins"]

C = TypeVar("C", bound=type)


def async_twins(*, threads: tuple[str, ...] = (), futures: tuple[str, ...] = (), values: tuple[str, ...] = ()) -> Any:
    """Make a class decorator that adds ``<name>_async`` for each method named.

    Args:
        threads: Methods that block; their twin runs them on another thread.
        futures: Methods whose twin gives the unresolved future.
        values: Methods whose twin gives the result of the future.

    Returns:
        The decorator.
    """

    def add(cls: C) -> C:
        for names, make in ((threads, _in_thread), (futures, _submitted), (values, _resolved)):
            for name in names:
                setattr(cls, f"{name}_async", make(cls, name))
        return cls

    return add


def _in_thread(cls: type, name: str) -> Callable[..., Any]:
    @functools.wraps(getattr(cls, name))
    async def twin(self: Any, *args: Any, **kwargs: Any) -> Any:
        import asyncio

        return await asyncio.to_thread(getattr(self, name), *args, **kwargs)

    return _named(twin, cls, name)


def _submitted(cls: type, name: str) -> Callable[..., Any]:
    @functools.wraps(getattr(cls, name))
    async def twin(self: Any, *args: Any, **kwargs: Any) -> Any:
        # On this thread: another one could not keep the order of the calls.
        return getattr(self, name)(*args, **kwargs)

    return _named(twin, cls, name)


def _resolved(cls: type, name: str) -> Callable[..., Any]:
    @functools.wraps(getattr(cls, name))
    async def twin(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await getattr(self, name)(*args, **kwargs)

    return _named(twin, cls, name)


def _named(twin: Callable[..., Any], cls: type, name: str) -> Callable[..., Any]:
    twin.__name__, twin.__qualname__ = f"{name}_async", f"{cls.__qualname__}.{name}_async"
    twin.__doc__ = f"Await :meth:`{name}`."
    return twin
