"""Numbers of NumPy and torch, made numbers of Python where one number is taken; neither library is imported here."""

from __future__ import annotations

import numbers
import operator
from typing import Any, SupportsFloat, SupportsIndex

from tinkex.errors import InvalidInputError

__all__ = ["plain_number", "whole_argument"]

_PLAIN = frozenset({int, float, bool, str, type(None)})


def plain_number(value: SupportsIndex | SupportsFloat | None) -> Any:
    """Return a number as ``int`` or ``float``; a converter of fields, before the validator that says what is allowed.

    Args:
        value: An int, a float, a NumPy or torch scalar, a 0-dimensional array or tensor, or what else has
            ``__index__`` or is a :class:`numbers.Real`. Booleans of any library become ``bool``.

    Returns:
        The number; whatever is none, as it came.
    """
    if type(value) in _PLAIN:
        return value
    given: Any = value
    if getattr(given, "shape", None) == () and callable(getattr(given, "item", None)):
        given = given.item()
    if isinstance(given, (bool, str)):
        return given
    if isinstance(given, int) or (hasattr(type(given), "__index__") and not hasattr(type(given), "__len__")):
        return operator.index(given)
    return float(given) if isinstance(given, numbers.Real) else given


def whole_argument(value: SupportsIndex, field: str, minimum: int) -> int:
    """Return an argument that must be a whole number.

    Raises:
        InvalidInputError: It is none, or it is below the minimum.
    """
    given = plain_number(value)
    if not isinstance(given, int) or isinstance(given, bool) or given < minimum:
        raise InvalidInputError(f"{field} must be a whole number of at least {minimum}, got {value!r:.60}", field=field)
    return given
