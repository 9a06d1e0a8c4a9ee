"""What stands for a member of a union that this version does not know."""

from __future__ import annotations

from typing import Any

import attrs

from tinkex.errors import InvalidInputError
from tinkex.types._base import Value, copied_dict, text

__all__ = ["Unrecognized"]


@attrs.frozen(kw_only=True, slots=True, repr=False)
class Unrecognized(Value):
    """A value of a kind that is newer than this version, such as another optimizer or another event of a bill.

    It can be read, looked at and sent; nothing else is known of it.

    Attributes:
        type: Its kind.
        fields: Everything else that it has, as plain data.
    """

    type: str = attrs.field(validator=text)
    fields: dict[str, Any] = copied_dict(factory=dict)

    def __attrs_post_init__(self) -> None:
        """Refuse a second kind."""
        if "type" in self.fields:
            raise InvalidInputError("fields must not have a type of its own; the kind is given as type", field="fields")
