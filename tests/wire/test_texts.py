"""Results whose long lists stay text until they are needed: the same values, and the same errors."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tinkex.errors import InvalidInputError
from tinkex.types import ForwardBackwardOutput, RequestFailedResponse, TensorData
from tinkex.wire import _texts
from tinkex.wire.json import decode_result, encode

KEYS = st.sampled_from(["data", "dtype", 'x"data', "data:", "other"])
NUMBERS = st.lists(st.integers(-9, 10**6) | st.floats(allow_nan=False, allow_infinity=False), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers(-2, 5) | st.sampled_from(['"data":[1,2,3,4]', "data", "]", "[1"])
VALUES = st.recursive(
    SCALARS | NUMBERS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
WRITERS = [orjson.dumps, lambda value: json.dumps(value).encode(), lambda value: json.dumps(value, indent=1).encode()]


def as_read(value: Any) -> Any:
    """Parse what is still text."""
    if isinstance(value, _texts.NumberText):
        return value.numbers()
    if isinstance(value, dict):
        return {name: as_read(item) for name, item in value.items()}
    return [as_read(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="module", autouse=True)
def _short_lists_are_long():
    """So that small examples say something."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_texts, "_LONG", 6)
        yield


@given(VALUES, st.sampled_from(WRITERS))
@example({"data": 0, "other": {"data": [1, 2, 3, 4]}}, WRITERS[0])
@example({"data": [1, 2, 3, 4], "other": {"data": 0}}, WRITERS[0])
@example([1, {"data": [1, 2, 3, 4]}], WRITERS[0])
@example({'x"data': [1, 2, 3, 4]}, WRITERS[0])
@example({'x"data': [1, 2, 3, 4], "data": 0}, WRITERS[0])
@example({"data": ["0, 1, 2]", 1, 2, 3]}, WRITERS[0])
@example({"data": [[1, 2, 3, 4], [5]]}, WRITERS[1])
def test_it_is_what_orjson_reads(value, write):
    """Whatever the text looks like, and wherever a list has a name that only looks like that of a tensor's."""
    text = write(value)
    assert orjson.loads(text) == as_read(_texts.parse_around(text))


def test_a_name_that_comes_twice_counts_as_orjson_has_it():
    """The last one."""
    text = b'{"data":[1,2,3,4],"data":[5,6,7,8]}'
    assert {"data": [5, 6, 7, 8]} == as_read(_texts.parse_around(text))


@pytest.mark.parametrize("write", WRITERS[:2])
def test_a_long_list_stays_text(write):
    """As the embedded server and others write it; a short one does not."""
    read = _texts.parse_around(write([{"a": {"data": [0.5, 1.5], "dtype": "float32"}}, {"a": {"data": [1]}}]))
    assert isinstance(read[0]["a"]["data"], _texts.NumberText)
    assert [1] == read[1]["a"]["data"]


@pytest.mark.parametrize(
    "text", [b'{"data":[1,2,3,4', b'{"data":[1,2,3,4]', b'{"data":[1,2,3,4],}', b'{"data":[1,2,3,4]}]']
)
def test_what_is_not_json_is_refused(text):
    """With the error of orjson, for the whole text."""
    with pytest.raises(InvalidInputError, match="not JSON"):
        decode_result(text, ForwardBackwardOutput)


@pytest.mark.parametrize(
    ("numbers", "problem"),
    [
        ("[1,,2,3]", "not JSON"),
        ("[1,2,nan]", "not JSON"),
        ("[1.5,2,null]", "number"),
        ("[1.5,2,true]", "item 2 has the wrong type"),
        ("[1.5,2,{}]", "number"),
    ],
)
def test_what_is_no_number_is_refused_by_its_place(numbers, problem):
    """Though the list is read later than the rest."""
    text = f'{{"loss_fn_output_type":"x","loss_fn_outputs":[{{"logprobs":{{"data":{numbers},"dtype":"float32"}}}}]}}'
    with pytest.raises(InvalidInputError, match=problem) as caught:
        decode_result(text.encode(), ForwardBackwardOutput)
    assert "loss_fn_outputs" in str(caught.value)


def test_a_result_is_read_and_so_is_a_failure():
    """The answers to a poll for a large result."""
    tensors = [{"logprobs": TensorData(data=[-0.5 * at for at in range(50)], dtype="float32")}] * 3
    whole = ForwardBackwardOutput(loss_fn_output_type="x", loss_fn_outputs=tensors, metrics={"loss:sum": 1.0})
    assert whole == decode_result(encode(whole), ForwardBackwardOutput)
    failure = RequestFailedResponse(error="no", category="user")
    assert failure == decode_result(encode(failure), ForwardBackwardOutput)
