"""The table of plain values is complete, whatever SDK is there."""

from __future__ import annotations

import pytest

from tests.strict.bodies import PLAIN, request_types
from tinkex.types._base import late_fields


def test_every_type_of_a_request_has_its_plain_value():
    """An endpoint or a part that is added without one is found here."""
    assert request_types() == {type(value) for value in PLAIN}


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: type(value).__name__)
def test_a_plain_value_has_nothing_that_is_younger_than_itself(value):
    """A default request has only what the first SDK with such a request knew, but for the place it belongs to."""
    assert late_fields(value) == {}
