"""Putting tinkex where ``import tinker`` finds it, and taking it away again."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from tinkex.compat import auth, constructors, courtesy, distribution, modules
from tinkex.errors import ConfigurationError

__all__ = ["install", "uninstall"]


class _Alias(ModuleType):
    """A module whose names are looked up in tinkex when they are first used."""

    def __init__(self, name: str, namespace: modules.Namespace) -> None:
        """Make the module; none of its names is loaded."""
        super().__init__(name, f"What the official SDK has in {name}, by tinkex.")
        self.__path__: list[str] = []  # a package, so that modules below it are looked for in sys.modules
        self.__spec__ = ModuleSpec(name, None, is_package=True)
        self.__all__ = list(namespace.public)
        self._namespace = namespace

    def __getattr__(self, name: str) -> Any:
        value = self._namespace.find(name, self.__name__)
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*self.__all__, *vars(self)})


def install() -> None:
    """Make ``import tinker`` mean tinkex, in this process, from now on.

    Also gives the values the methods of pydantic that programs call on them, such as ``model_dump`` and
    ``model_validate``, and lets them be fields of its models; pydantic itself need not be installed. What the
    constructors of the official SDK ignore, ours ignore too from then on, with a warning. Who asks for the version of
    ``tinker`` is told that of the official SDK. Calling it again does nothing.

    Raises:
        ConfigurationError: The official SDK, or something else of that name, has been imported already.
    """
    present = sys.modules.get("tinker")
    if isinstance(present, _Alias):
        return
    if present is not None:
        raise ConfigurationError(
            f"another module named tinker is imported already, from {getattr(present, '__file__', None)}; call "
            "tinkex.compat.install() before anything imports it"
        )
    constructors.add()
    courtesy.add()
    distribution.add()
    for name, namespace in modules.table().items():
        module = sys.modules[name] = _Alias(name, namespace)
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, module)
    sys.modules["tinker.auth"] = auth


def uninstall() -> None:
    """Undo :func:`install`; modules that have imported names keep them."""
    if isinstance(sys.modules.get("tinker"), _Alias):
        for name in [name for name in sys.modules if name.partition(".")[0] == "tinker"]:
            del sys.modules[name]
        courtesy.remove()
        distribution.remove()
        constructors.remove()
