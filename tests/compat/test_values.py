"""What pydantic's values answer: code written for the official SDK asks ours the same."""

from __future__ import annotations

import datetime
import json

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tinkex
from tests.strategies import VALUES
from tinkex.compat import courtesy, install, uninstall
from tinkex.compat.plain import fields_of, items_of

TIME = datetime.datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=datetime.timezone.utc)
CLASSES = sorted(VALUES, key=lambda cls: cls.__name__)


@pytest.fixture
def run(tinker):
    """A training run, as a server describes it."""
    checkpoint = tinker.types.Checkpoint(
        checkpoint_id="weights/a", checkpoint_type="training", time=TIME, tinker_path="tinker://m/weights/a"
    )
    return tinker.types.TrainingRun(
        training_run_id="m",
        base_model="acme/small",
        model_owner="o",
        is_lora=True,
        last_request_time=TIME,
        last_checkpoint=checkpoint,
    )


def test_a_dump_has_every_field(tinker) -> None:
    """Also what is None, unless that is not wanted; of plain data only, all the way down."""
    params = tinker.SamplingParams(max_tokens=3, stop=[7])
    everything = {"max_tokens": 3, "seed": None, "stop": [7], "temperature": 1.0, "top_k": -1, "top_p": 1.0}
    assert params.model_dump() == params.dict() == dict(params) == vars(params) == everything
    assert params.model_dump(exclude_none=True).keys() == everything.keys() - {"seed"}
    assert params.model_dump(include={"stop", "seed"}) == {"stop": [7], "seed": None}
    assert params.model_dump(exclude={"stop", "seed"}, by_alias=True).keys() == everything.keys() - {"stop", "seed"}
    assert params.model_dump(exclude_unset=True) == params.model_dump(exclude_defaults=True)
    assert params.model_dump(exclude_unset=True) == {"max_tokens": 3, "stop": [7]}
    assert tinker.ModelInput.from_ints([1, 2]).model_dump() == {"chunks": [{"tokens": [1, 2], "type": "encoded_text"}]}
    datum = tinker.Datum(tinker.ModelInput.from_ints([1]), {"target_tokens": [2]})
    assert datum.model_dump()["loss_fn_inputs"]["target_tokens"]["data"] == [2]


def test_times_are_times_or_texts(run) -> None:
    """In Python they are datetimes, in JSON texts; a value inside another has all its fields too."""
    assert run.model_dump()["last_checkpoint"]["time"] is TIME
    assert run.model_dump()["last_checkpoint"]["expires_at"] is None
    assert run.model_dump(mode="json")["last_checkpoint"]["time"] == "2026-01-02T03:04:05.000600Z"
    assert json.loads(run.model_dump_json(indent=2)) == run.model_dump(mode="json") == json.loads(run.json())
    assert run.model_dump_json(indent=2).startswith('{\n  "training_run_id": "m",\n  "base_model"')
    assert run.model_dump_json(include={"base_model"}) == '{"base_model":"acme/small"}'
    assert "corrupted" not in run.model_dump(exclude_unset=True)


def test_json_has_no_nan_and_writes_bytes_as_base64(tinker) -> None:
    """As pydantic and the chunks of the official SDK do it."""
    assert tinker.OptimStepResponse(metrics={"a": float("nan")}).model_dump_json() == '{"metrics":{"a":null}}'
    image = tinker.types.ImageChunk(data=b"ab", format="png")
    assert image.model_dump()["data"] == "YWI="
    assert tinker.types.ImageChunk.model_validate(image.model_dump()) == image


@pytest.mark.parametrize("cls", CLASSES)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_value_comes_back_from_what_it_dumps(tinker, cls, data) -> None:
    """Whichever form it went through; what is a value already stays it."""
    value = data.draw(VALUES[cls])
    assert cls.model_validate(value) is value
    assert cls.model_validate(value.model_dump()) == value
    assert cls.model_validate(value.model_dump(mode="json")) == value
    assert cls.model_validate_json(value.model_dump_json()) == value
    assert value.model_copy(deep=True) == value.model_copy() == value.copy() == value
    assert value.model_copy(update=dict(items_of(value))) == value


def test_copies_are_changed_and_checked(tinker) -> None:
    """A change that the constructor would refuse is refused."""
    params = tinker.SamplingParams(max_tokens=3, stop=[7])
    assert params.model_copy(update={"max_tokens": 5}) == tinker.SamplingParams(max_tokens=5, stop=[7])
    assert params.copy(update={"max_tokens": 5}).max_tokens == 5
    with pytest.raises(tinkex.InvalidInputError, match="max_tokens"):
        params.model_copy(update={"max_tokens": 0})


def test_what_does_not_fit_is_a_value_error_that_names_the_field(tinker) -> None:
    """A field that a request does not have is refused; of what a server says it is ignored, as in the official SDK."""
    with pytest.raises(ValueError, match="max_tokens"):
        tinker.SamplingParams.model_validate({"max_tokens": "many"})
    with pytest.raises(ValueError, match="AdamParams has no field lr"):
        tinker.AdamParams.model_validate({"lr": 1e-3})
    with pytest.raises(ValueError, match="is made of a dict, got 3"):
        tinker.AdamParams.model_validate(3)
    assert tinker.types.Cursor.model_validate({"offset": 0, "limit": 1, "total_count": 2, "new": 3}).limit == 1
    assert tinker.AdamParams.model_construct(learning_rate=0.5) == tinker.AdamParams(learning_rate=0.5)


def test_fields_are_known_by_name(tinker) -> None:
    """Of the class and of its values; what was given is what differs from the default."""
    params = tinker.SamplingParams(max_tokens=3)
    assert list(tinker.SamplingParams.model_fields) == list(params.model_fields) == list(dict(params))
    assert params.model_fields_set == {"max_tokens"}
    assert tinker.LoraConfig.model_fields["rank"].is_required()
    assert tinker.LoraConfig.model_fields["seed"].default is None
    schema = tinker.LoraConfig.model_json_schema()
    assert (schema["required"], schema["properties"]["rank"]) == (["rank"], {"type": "integer"})


def test_a_value_is_a_field_of_a_pydantic_model(tinker) -> None:
    """It is taken as it is or made of a dict, also out of JSON, and written with the rest."""
    pydantic = pytest.importorskip("pydantic")
    chunk = tinker.EncodedTextChunk | tinker.types.ImageChunk
    model = pydantic.create_model("M", p=(tinker.SamplingParams, tinker.SamplingParams()), c=(chunk | None, None))
    assert model(p=tinker.SamplingParams(max_tokens=3)).p.max_tokens == 3
    assert model(p={"max_tokens": 3}).p == tinker.SamplingParams(max_tokens=3)
    assert model(c={"tokens": [1]}).c == tinker.EncodedTextChunk(tokens=[1])
    made = model.model_validate_json('{"p": {"max_tokens": 3}}')
    assert model.model_validate_json(made.model_dump_json()) == made
    assert made.model_dump(exclude_none=True)["p"].keys() == {"max_tokens", "temperature", "top_k", "top_p"}
    assert "max_tokens" in json.dumps(model.model_json_schema())
    with pytest.raises(pydantic.ValidationError, match="max_tokens"):
        model(p={"max_tokens": 0})


def test_values_are_left_alone_without_install() -> None:
    """The values of tinkex by itself have no such methods, and say where they are."""
    assert not hasattr(tinkex.SamplingParams(), "model_dump")
    assert not any(hasattr(cls, name) for cls in CLASSES for name in courtesy._MEMBERS if not hasattr(object, name))
    with pytest.raises(AttributeError, match=r"no attribute 'model_dump_json'; tinkex\.compat\.install\(\) adds"):
        tinkex.AdamParams().model_dump_json()
    with pytest.raises(AttributeError, match=r"no attribute 'lr'$"):
        tinkex.AdamParams().lr  # noqa: B018 - the point is the error


def test_the_methods_go_with_the_names() -> None:
    """Uninstall leaves every class as it was."""
    before = {cls: set(vars(cls)) for cls in CLASSES}
    install()
    uninstall()
    assert {cls: set(vars(cls)) - {"__attrs_types_resolved__"} for cls in CLASSES} == {
        cls: names - {"__attrs_types_resolved__"} for cls, names in before.items()
    }


@pytest.mark.parametrize("cls", CLASSES)
def test_no_field_is_hidden_by_a_method(cls) -> None:
    """None of the methods has the name of a field."""
    assert not set(fields_of(cls)) & (set(courtesy._MEMBERS) - {"__iter__"})


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if attrs.has(cls) and hasattr(cls, "__dict__")])
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_vars_has_the_fields(cls, data) -> None:
    """json.dumps(value, default=vars) is how programs log settings."""
    value = data.draw(VALUES[cls])
    if isinstance(value, tinkex.types._base.Value):
        assert vars(value) == {field.name: getattr(value, field.name) for field in attrs.fields(cls)}
