"""Checkpoint paths and names, and the bounds of the requests that save and load."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinkex import types
from tinkex.errors import InvalidInputError
from tinkex.types import (
    AuthTokenResponse,
    CheckpointArchiveUrlResponse,
    CopyWeightsRequest,
    CreateModelRequest,
    CreateSamplingSessionRequest,
    CreateSessionRequest,
    ExternalWeightsUrlsResponse,
    LoadWeightsRequest,
    LoraConfig,
    ParsedCheckpointTinkerPath,
    SaveWeightsForSamplerRequest,
    SaveWeightsRequest,
    TraceExportResponse,
    Unrecognized,
)
from tinkex.types.weights import check_name, check_path, parts_of, require_kind, run_of

RUN = "4f:train:0"
HOUR, TEN_YEARS = 3600, 10 * 366 * 24 * 3600
parts = st.text(min_size=1, max_size=10).filter(lambda text: "/" not in text)


@given(parts, st.sampled_from(["weights", "sampler_weights", "external_weights"]), parts)
def test_a_path_comes_apart_and_together(run, kind, name):
    """The parts of any well-formed path are those it was made of."""
    path = f"tinker://{run}/{kind}/{name}"
    parsed = ParsedCheckpointTinkerPath.from_tinker_path(path)
    assert parsed.tinker_path == path == f"tinker://{parsed.training_run_id}/{parsed.checkpoint_id}"
    assert (parsed.training_run_id, parsed.checkpoint_id, parsed.name) == (run, f"{kind}/{name}", name)


@pytest.mark.parametrize(
    ("kind", "checkpoint_type"),
    [("weights", "training"), ("sampler_weights", "sampler"), ("external_weights", "external")],
)
def test_the_kind_of_a_path_is_its_checkpoint_type(kind, checkpoint_type):
    """The middle part says what the checkpoint is for."""
    path = f"tinker://{RUN}/{kind}/a"
    assert ParsedCheckpointTinkerPath.from_tinker_path(path).checkpoint_type == checkpoint_type
    assert require_kind(path, checkpoint_type).name == "a"


BAD_PATHS = [
    "",
    "a",
    f"{RUN}/weights/a",
    f"http://{RUN}/weights/a",
    "tinker://",
    f"tinker://{RUN}/a",
    f"tinker://{RUN}/weights/",
    f"tinker:///{RUN}/weights/a",
    f"tinker://{RUN}/weights/a/b",
    f"tinker://{RUN}/optimizer/a",
    f"tinker://{RUN}/Weights/a",
    None,
    5,
]


@pytest.mark.parametrize("bad", BAD_PATHS)
def test_what_is_no_path_is_refused_with_the_form(bad):
    """The message shows what was given and what would be right, and names the field."""
    with pytest.raises(
        InvalidInputError, match=r"model_path .* is not a checkpoint path; expected tinker://<run>/weights/"
    ) as caught:
        ParsedCheckpointTinkerPath.from_tinker_path(bad, "model_path")
    assert caught.value.field == "model_path"
    assert repr(bad)[:100] in caught.value.message


@pytest.mark.parametrize(
    ("wanted", "way_out"),
    [
        ("training", r"save_state, tinker://<run>/weights/<name>"),
        ("sampler", r"save_weights_for_sampler, tinker://<run>/sampler_weights/<name>"),
        ("external", r"save_weights_external, tinker://<run>/external_weights/<name>"),
    ],
)
@pytest.mark.parametrize("given_kind", ["training", "sampler", "external"])
def test_the_wrong_kind_of_path_is_refused_with_the_way_out(wanted, way_out, given_kind):
    """A path to sample from cannot be trained on; the message names the call that makes the right one."""
    kinds = {"training": "weights", "sampler": "sampler_weights", "external": "external_weights"}
    path = f"tinker://{RUN}/{kinds[given_kind]}/a"
    if given_kind == wanted:
        assert require_kind(path, wanted).tinker_path == path
        return
    with pytest.raises(InvalidInputError, match=f"path '{path}' is a {given_kind} checkpoint; .*{way_out}") as caught:
        require_kind(path, wanted)
    assert caught.value.field == "path"


@pytest.mark.parametrize("name", ["a", "step-40", "v1.2_final", "x" * 255])
def test_names_are_accepted(name):
    """Letters, digits, dots, dashes and underscores make a name."""
    check_name(name)


@pytest.mark.parametrize("bad", ["", "a b", "a/b", "\u00e9", "x" * 256, "a\n", None, 5, f"tinker://{RUN}/weights/a"])
def test_what_is_no_name_is_refused(bad):
    """A whole path gets a hint."""
    with pytest.raises(InvalidInputError, match="name must be 1 to 255 letters") as caught:
        check_name(bad)
    assert ("give the last part only" in caught.value.message) is ("/" in str(bad))
    assert caught.value.field == "name"


@pytest.mark.parametrize("wanted", ["training", "sampler", "external", None])
@pytest.mark.parametrize("path", [bad for bad in BAD_PATHS if isinstance(bad, str) and bad])
def test_how_a_path_looks_is_up_to_the_server(path, wanted):
    """What has no form that is known here is passed on, whatever it is for."""
    assert path == check_path(path, wanted)
    assert parts_of(path) is None


@pytest.mark.parametrize("wanted", ["training", "sampler", "external"])
@pytest.mark.parametrize("kind", ["weights", "sampler_weights", "external_weights"])
def test_a_path_that_names_another_kind_is_refused(kind, wanted):
    """In the form that says it; where any kind will do, none is refused."""
    path = f"tinker://{RUN}/{kind}/a"
    assert path == check_path(path)
    if parts_of(path).checkpoint_type == wanted:
        assert path == check_path(path, wanted)
        return
    with pytest.raises(InvalidInputError, match=f"model_path '{path}' is a .* checkpoint; ") as caught:
        check_path(path, wanted, "model_path")
    assert caught.value.field == "model_path"


@pytest.mark.parametrize("bad", ["", " \n", None, 5, b"tinker://a/weights/b"])
def test_what_is_no_text_is_no_path(bad):
    """The message shows it, and where paths come from."""
    with pytest.raises(InvalidInputError, match="model_path must be the path of a checkpoint as the server") as caught:
        check_path(bad, "sampler", "model_path")
    assert (caught.value.field, repr(bad) in caught.value.message) == ("model_path", True)


@pytest.mark.parametrize(
    ("path", "run"),
    [
        (f"tinker://{RUN}/weights/a", RUN),
        ("tinker://m/a", "m"),
        ("twinkle://m/x/y/z", "m"),
        ("tinker://m/", None),
        ("tinker:///a", None),
        ("m/weights/a", None),
        ("a", None),
    ],
)
def test_a_path_names_its_run_first(path, run):
    """Whatever follows."""
    assert run == run_of(path)


@pytest.mark.parametrize("cls", [SaveWeightsRequest, SaveWeightsForSamplerRequest])
def test_a_checkpoint_lives_between_an_hour_and_ten_years(cls):
    """Both ends are allowed, and None keeps it for ever."""
    for ttl in (HOUR, TEN_YEARS, None):
        assert cls(model_id="m", ttl_seconds=ttl).ttl_seconds == ttl
    for ttl in (HOUR - 1, TEN_YEARS + 1, 3600.0, True):
        with pytest.raises(InvalidInputError, match=r"ttl_seconds must be a whole number of at least 3600 and at most"):
            cls(model_id="m", ttl_seconds=ttl)


@pytest.mark.parametrize("bad", ["", None, 5])
@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("SaveWeightsRequest.model_id", lambda bad: SaveWeightsRequest(model_id=bad)),
        ("LoadWeightsRequest.path", lambda bad: LoadWeightsRequest(path=bad)),
        ("CreateModelRequest.base_model", lambda bad: CreateModelRequest(
            session_id="s", model_seq_id=0, base_model=bad)),
        ("CreateSessionRequest.sdk_version", lambda bad: CreateSessionRequest(tags=[], sdk_version=bad)),
    ],
)  # fmt: skip
def test_ids_and_paths_are_not_empty(field, make, bad):
    """An empty id is a mistake in the calling code."""
    with pytest.raises(InvalidInputError, match=f"{field} must be a non-empty text, got"):
        make(bad)


@pytest.mark.parametrize("bad", [0, -1, 1.5, True])
def test_a_rank_is_at_least_one(bad):
    """A matrix of rank 0 trains nothing."""
    with pytest.raises(InvalidInputError, match=r"LoraConfig\.rank must be a whole number of at least 1"):
        LoraConfig(rank=bad)


def test_something_must_be_trained():
    """All three switches off is refused; any one on is fine."""
    off = {"train_unembed": False, "train_mlp": False, "train_attn": False}
    with pytest.raises(InvalidInputError, match="nothing would be trained") as caught:
        LoraConfig(rank=1, **off)
    assert caught.value.field == "train_mlp"
    for name in off:
        assert getattr(LoraConfig(rank=1, **{**off, name: True}), name)


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_sampler_samples_from_something(nothing):
    """One of the two names is needed; both are allowed."""
    ids = {"session_id": "s", "sampling_session_seq_id": 0}
    with pytest.raises(InvalidInputError, match=r"needs base_model .* or model_path") as caught:
        CreateSamplingSessionRequest(**ids, base_model=nothing, model_path=nothing)
    assert caught.value.field == "model_path"
    assert CreateSamplingSessionRequest(**ids, base_model="b", model_path="p").base_model == "b"


@pytest.mark.parametrize("bad", [-1, 0.0, None])
def test_counters_of_a_session_start_at_zero(bad):
    """Numbers of models and samplers are whole and not negative."""
    with pytest.raises(InvalidInputError, match="model_seq_id must be a whole number of at least 0"):
        CreateModelRequest(session_id="s", model_seq_id=bad, base_model="b")


def test_a_text_is_not_a_list_of_tags():
    """``tags="nightly"`` would be seven tags of one letter."""
    with pytest.raises(InvalidInputError, match="tags must be a list of texts, got the text 'nightly'"):
        CreateSessionRequest(tags="nightly", sdk_version="1")


def test_metadata_does_not_follow_its_source():
    """The dicts and lists that were handed in may be reused."""
    tags, metadata, fields = ["a"], {"x": "1"}, {"momentum": 0.9}
    session = CreateSessionRequest(tags=tags, user_metadata=metadata, sdk_version="1")
    model = CreateModelRequest(session_id="s", model_seq_id=0, base_model="b", user_metadata=metadata)
    load = LoadWeightsRequest(path="p", user_metadata=metadata)
    other = Unrecognized(type="sgd", fields=fields)
    save = SaveWeightsRequest(model_id="m", user_metadata=metadata)
    for source in (tags, metadata, fields):
        source.clear()
    assert session.tags == ["a"]
    assert session.user_metadata == model.user_metadata == load.user_metadata == save.user_metadata == {"x": "1"}
    assert other.fields == {"momentum": 0.9}


def test_signed_urls_and_access_tokens_are_not_shown():
    """What gives access to a checkpoint does not end up in a log."""
    moment = datetime(2026, 3, 1, tzinfo=timezone.utc)
    archive = CheckpointArchiveUrlResponse(url="https://store.test/a.tar?signature=hush", expires=moment)
    assert "hush" not in repr(archive)
    assert "https://store.test/a.tar" in repr(archive)
    assert "hush" not in repr(LoadWeightsRequest(path="p", weights_access_token="hush"))
    files = ExternalWeightsUrlsResponse(urls={"a.bin": "https://store.test/a?signature=hush"}, expires=moment)
    assert "hush" not in repr(files)
    assert "a.bin" in repr(files)
    copy = CopyWeightsRequest(source_path="p", destination_project_id="d", weights_access_token="hush")
    assert "hush" not in repr(copy)
    trace = TraceExportResponse(status="ready", url="https://store.test/t?signature=hush")
    assert "hush" not in repr(trace)
    assert "hush" not in repr(AuthTokenResponse(jwt="hush"))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: CopyWeightsRequest(source_path="p"), "either destination_project_id, or session_id"),
        (lambda: CopyWeightsRequest(source_path="p", session_id="s"), "either destination_project_id, or session_id"),
        (
            lambda: CopyWeightsRequest(source_path="p", destination_project_id="d", session_id="s", model_seq_id=0),
            "either destination_project_id, or session_id",
        ),
        (lambda: types.OptimStepRequest(model_id="m"), "either adam_params or optimizer_params"),
        (
            lambda: types.OptimStepRequest(
                model_id="m",
                adam_params=types.AdamParams(),
                optimizer_params=types.DimuonParams(learning_rate=1),
            ),
            "either adam_params or optimizer_params",
        ),
        (
            lambda: types.SaveWeightsExternalRequest(model_id="m", path="p", age_encryption_recipients="age1x"),
            "a list of texts, got the text",
        ),
        (lambda: types.DimuonParams(learning_rate=-1), "learning_rate must be a finite number of at least 0"),
        (lambda: types.SessionSearchRequest(limit=201), "limit must be a whole number of at least 1 and at most 200"),
        (lambda: types.SessionSearchRequest(statuses=[]), "statuses is empty"),
        (lambda: types.UserSearchOwner(owner_urns=["u"] * 11), "1 to 10 users, got 11"),
        (lambda: types.CustomLossInput(name="Logprobs", rank=1), "lower-case letters"),
        (
            lambda: types.CreateCustomLossRequest(
                session_id="s", custom_loss_seq_id=0, name="n", inputs=[], graph=types.CustomLossGraph(nodes=[])
            ),
            "the first of them 'logprobs'",
        ),
        (lambda: Unrecognized(type="x", fields={"type": "y"}), "must not have a type of its own"),
    ],
)
def test_what_no_server_would_take_is_refused_at_once(make, problem):
    """The constructor says what is wrong and what is allowed, before anything is sent."""
    with pytest.raises(InvalidInputError, match=problem):
        make()
