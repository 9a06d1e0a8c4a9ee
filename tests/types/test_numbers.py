"""Long runs of numbers are copied and checked, in whatever form they come."""

from __future__ import annotations

import array
import decimal
import fractions
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinkex.errors import InvalidInputError
from tinkex.types._numbers import (
    FLOAT32_OVERFLOW,
    all_finite,
    bounds,
    copy_floats,
    copy_ints,
    kinds,
    plain_list,
    shorten,
    to_list,
)

INTS = [3, 0, 7]
INT_DTYPES = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", ">i4"]
FLOAT_DTYPES = ["float16", "float32", "float64", "longdouble", ">f8"]


class Three:
    """A number of a foreign library."""

    def __index__(self) -> int:
        return 3

    def __float__(self) -> float:
        return 3.0


@pytest.mark.parametrize(
    "values",
    [
        INTS,
        tuple(INTS),
        iter(INTS),
        array.array("H", INTS),
        array.array("q", INTS),
        dict.fromkeys(INTS),
        [Three(), 0, 7],
        list(np.array(INTS)),
    ],
    ids=["list", "tuple", "iterator", "array", "int64 array", "dict keys", "index", "numpy items"],
)
def test_whole_numbers_come_in_many_forms(values):
    """Whatever can be iterated over gives an array of int64."""
    assert copy_ints(values, "x") == array.array("q", INTS)


@pytest.mark.parametrize("dtype", INT_DTYPES)
def test_integer_arrays_become_int64(dtype):
    """An array of any integer type is copied as int64, flattened row by row."""
    given = np.array([INTS, INTS], dtype=dtype).T
    copied = copy_ints(given, "x")
    assert copied.dtype == np.dtype("int64")
    assert copied.tolist() == [3, 3, 0, 0, 7, 7]


@pytest.mark.parametrize("dtype", FLOAT_DTYPES + INT_DTYPES + ["bool"])
def test_numeric_arrays_become_float32(dtype):
    """An array of any number type is copied as float32, flattened row by row."""
    copied = copy_floats(np.array([[1, 0], [1, 1]], dtype=dtype).T, "x")
    assert copied.dtype == np.dtype("float32")
    assert copied.tolist() == [1, 1, 0, 1]


@pytest.mark.parametrize(
    "given",
    [
        [1.5, -2.0],
        [1, 2.5],
        [True, False],
        [Three(), fractions.Fraction(1, 2), decimal.Decimal(1)],
        list(np.array([1.5, 2.5], dtype="float32")),
    ],
)
def test_floats_come_in_many_forms(given):
    """Whatever counts as a number gives an array of float32, booleans as 0 and 1."""
    assert copy_floats(given, "x") == array.array("f", map(float, given))


@pytest.mark.parametrize("form", [list, np.array])
def test_whole_numbers_that_fit_are_kept_as_int32(form):
    """Token ids take the room that they take on the wire."""
    assert memoryview(copy_ints(form([1, 2**31 - 1]), "x", low=0, high=2**31 - 1)).itemsize == 4
    assert memoryview(copy_ints(form([1, 2**31 - 1]), "x", low=0, high=2**31)).itemsize == 8
    assert memoryview(copy_ints(form([1, 2**31 - 1]), "x", low=-1, high=2**31 - 1)).itemsize == 8


@pytest.mark.parametrize("masked", [[True, False], (False, True), [np.True_, 1]])
def test_a_mask_is_no_list_of_whole_numbers(masked):
    """Booleans where numbers belong are a mistake, which the first of them tells."""
    with pytest.raises(InvalidInputError, match=r"x\[0\] must be a whole number, got (True|False|np.True_)"):
        copy_ints(masked, "x")


@pytest.mark.parametrize("copy", [copy_ints, copy_floats])
@pytest.mark.parametrize("make", [list, np.array, lambda items: array.array("q", items)])
def test_a_copy_does_not_follow_its_source(copy, make):
    """What the caller does to the list or array afterwards changes nothing."""
    values = make([1, 2])
    copied = copy(values, "x")
    values[0] = 9
    assert to_list(copied) == [1, 2]


def test_a_float32_array_is_copied_too():
    """An array that already has the right type is not borrowed."""
    values = np.array([1, 2], dtype="float32")
    copied = copy_floats(values, "x")
    values[0] = 9
    assert to_list(copied) == [1, 2]


def test_the_copy_of_an_array_cannot_be_changed():
    """A value is frozen to the bottom."""
    with pytest.raises(ValueError, match="read-only"):
        copy_ints(np.array([1]), "x")[0] = 2


@pytest.mark.parametrize("bad", [1.0, "1", None, [1], b"1", np.float32(1)])
def test_an_item_that_is_no_whole_number_is_named_by_position(bad):
    """Fractions and texts are no whole numbers, wherever they hide."""
    with pytest.raises(InvalidInputError, match=r"x\[2\] must be a whole number, got ") as caught:
        copy_ints([1, 2, bad, 4], "x")
    assert caught.value.field == "x[2]"


def test_a_boolean_of_torch_is_no_whole_number_either():
    """Scalars of torch say by their type what they are."""
    torch = pytest.importorskip("torch")
    assert to_list(copy_ints([torch.tensor(3)], "x")) == [3]
    with pytest.raises(InvalidInputError, match=r"x\[0\] must be a whole number, got tensor\(True\)"):
        copy_ints([torch.tensor(True)], "x")


@pytest.mark.parametrize("bad", ["1", b"1", None, [1.0], 1j, np.array([1.0, 2.0]), object()])
def test_an_item_that_is_no_number_is_named_by_position(bad):
    """Texts are no numbers, even if they look like some."""
    with pytest.raises(InvalidInputError, match=r"x\[2\] must be a number, got ") as caught:
        copy_floats([1, 2.0, bad, 4], "x")
    assert caught.value.field == "x[2]"


@pytest.mark.parametrize("copy", [copy_ints, copy_floats])
@pytest.mark.parametrize("wrong", ["123", b"123", 5, None, 1.5])
def test_what_is_no_list_is_refused(copy, wrong):
    """A text is not a list of digits, and a number is not a list of one."""
    with pytest.raises(InvalidInputError, match="x must be a list or an array of numbers, got"):
        copy(wrong, "x")


@pytest.mark.parametrize("dtype", ["float32", "float64", "bool", "complex64", "U1", "object"])
def test_arrays_that_hold_no_whole_numbers_are_refused(dtype):
    """The type of the array decides, not its values."""
    with pytest.raises(InvalidInputError, match="x must hold whole numbers, not "):
        copy_ints(np.array([1], dtype=dtype), "x")


@pytest.mark.parametrize("dtype", ["complex64", "U1", "object", "datetime64[s]"])
def test_arrays_that_hold_no_numbers_are_refused(dtype):
    """Complex numbers, texts and times are not float32."""
    with pytest.raises(InvalidInputError, match="x must hold numbers, not "):
        copy_floats(np.array([1], dtype=dtype), "x")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, FLOAT32_OVERFLOW, -FLOAT32_OVERFLOW, 1e308])
@pytest.mark.parametrize("form", [list, tuple, lambda items: np.array(items, dtype="float64")])
def test_a_number_that_no_float32_can_hold_is_named_by_position(form, bad):
    """NaN, infinity and what would become infinity are refused, with the place and a hint."""
    with pytest.raises(InvalidInputError, match=r"x\[1\] is .*finite.*division by zero") as caught:
        copy_floats(form([0.5, bad, math.nan]), "x")
    assert caught.value.field == "x[1]"


def test_a_whole_number_that_no_float_can_hold_is_named_too():
    """Even a number that would overflow the check itself is found."""
    with pytest.raises(InvalidInputError, match=r"x\[1\] is 1000000"):
        copy_floats([0.5, 10**400], "x")


def test_the_position_in_a_matrix_counts_row_by_row():
    """The position named is that in the flattened data."""
    with pytest.raises(InvalidInputError, match=r"x\[2\] is nan"):
        copy_floats(np.array([[0.0, 1.0], [math.nan, 2.0]]), "x")


def test_the_largest_float32_is_accepted():
    """All that rounds to a finite float32 may pass, and nothing more."""
    edge = math.nextafter(FLOAT32_OVERFLOW, 0) if hasattr(math, "nextafter") else 3.4028235677973362e38
    largest = float(np.finfo("float32").max)
    assert to_list(copy_floats([edge, -edge, int(edge)], "x")) == [largest, -largest, largest]
    assert copy_floats(np.array([edge]), "x")[0] == np.finfo("float32").max


def test_many_large_numbers_are_not_mistaken_for_an_overflow():
    """Each number counts by itself, however large they are together."""
    assert copy_floats([3e38] * 100, "x") == array.array("f", [3e38] * 100)


@given(st.lists(st.floats(width=64) | st.integers()))
def test_the_cheap_check_of_floats_is_exact(values):
    """A list is refused exactly if a loop over it would find a number that does not fit."""
    fits = all(-FLOAT32_OVERFLOW < value < FLOAT32_OVERFLOW for value in values)
    try:
        accepted = copy_floats(values, "x") == array.array("f", values)
    except InvalidInputError:
        accepted = False
    assert accepted is fits


EDGES = [-(2**63) - 1, -(2**63), -1, 0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64, 10**400]


@given(
    st.lists(st.sampled_from(EDGES) | st.integers()),
    st.sampled_from([0, -(2**63)]),
    st.sampled_from([2**31 - 1, 2**63 - 1]),
)
def test_the_cheap_check_of_bounds_is_exact(values, low, high):
    """A list is refused exactly if a loop over it would find a number out of bounds."""
    fits = all(low <= value <= high for value in values)
    try:
        accepted = to_list(copy_ints(values, "x", low=low, high=high)) == values
    except InvalidInputError:
        accepted = False
    assert accepted is fits


@pytest.mark.parametrize("form", [list, lambda items: np.array(items, dtype="int64")])
@pytest.mark.parametrize("bad", [-1, 11])
def test_a_number_out_of_bounds_is_named_by_position(form, bad):
    """Lists and arrays report the same place."""
    with pytest.raises(InvalidInputError, match=rf"x\[1\] is {bad}; it must lie between 0 and 10") as caught:
        copy_ints(form([10, bad, 0]), "x", low=0, high=10)
    assert caught.value.field == "x[1]"


def test_a_large_unsigned_number_does_not_wrap_around():
    """2**63 is no int64 and must not become a negative one."""
    with pytest.raises(InvalidInputError, match=r"x\[0\] is 9223372036854775808"):
        copy_ints(np.array([2**63], dtype="uint64"), "x")


@pytest.mark.parametrize("code", "fdqH")
def test_a_packed_array_is_checked_like_a_list(code):
    """An array of the standard library is copied and checked, whether it has our type already or not."""
    bad = {"f": math.inf, "d": 1e39}.get(code)
    values = array.array(code, [1, 2])
    copied = copy_floats(values, "x")
    values[0] = 3
    assert copied == array.array("f", [1, 2])
    if bad is not None:
        with pytest.raises(InvalidInputError, match=r"x\[1\] is (inf|1e\+39)"):
            copy_floats(array.array(code, [0.5, bad]), "x")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "form", [lambda items: array.array("f", items), lambda items: np.array(items, dtype="float32")]
)
def test_packed_numbers_are_finite_or_not(form, bad):
    """The quick answer about packed numbers is right for large ones, for both signs and in any place."""
    large = [3e38, -3e38, 2.0**127, -1.0]
    assert all_finite(form(large))
    for at in range(4):
        assert not all_finite(form([*large[:at], bad, *large[at:]]))


@pytest.mark.parametrize("form", [lambda items: array.array("i", items), lambda items: np.array(items, dtype="int32")])
def test_bounds_are_the_smallest_and_the_largest(form):
    """However the numbers are kept; where there are none, the bounds are 0 and 0."""
    assert bounds(form([3, -1, 2])) == (-1, 3)
    assert bounds(form([])) == (0, 0)


@given(st.lists(st.integers() | st.booleans() | st.floats() | st.none()))
def test_kinds_are_the_types_that_occur(values):
    """Runs of one type are counted once, and no type is missed."""
    assert kinds(values) == {type(value) for value in values}


@given(st.lists(st.floats() | st.integers(), max_size=5))
def test_all_finite_is_exact(values):
    """The quick answer is that of a loop."""
    assert all_finite(values) is all(isinstance(value, int) or math.isfinite(value) for value in values)


def test_plain_lists_hold_python_numbers():
    """An array becomes a list that JSON can write and ``+`` can join."""
    made = plain_list(np.array([[1, 2], [3, 4]]))
    assert made == [1, 2, 3, 4]
    assert {type(item) for item in made} == {int}
    source = [1, 2]
    assert plain_list(source) == source
    assert plain_list(source) is not source


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (None, "None"),
        ([], "[]"),
        ([1, 2], "[1, 2]"),
        (["a"], "['a']"),
        ([1 / 3, None], "[0.333333, None]"),
        (range(6), "[0, 1, 2, 3, 4, 5]"),
        (range(1000), "[0, 1, 2, 3, 4, 5, ... 1000 in all]"),
        (np.arange(1000), "[0, 1, 2, 3, 4, 5, ... 1000 in all]"),
    ],
)
def test_long_lists_are_shown_by_their_first_items(values, shown):
    """A reader sees a few items and how many there are."""
    assert shorten(list(values) if isinstance(values, range) else values) == shown
