"""tinkex under the official SDK's name, for programs that cannot be changed.

:func:`install` puts modules named ``tinker``, ``tinker.types`` and so on where ``import`` looks first; they hold the
objects of tinkex. A program whose imports can be changed needs only ``import tinkex as tinker``.
"""

from tinkex.compat.install import install, uninstall

__all__ = ["install", "uninstall"]
