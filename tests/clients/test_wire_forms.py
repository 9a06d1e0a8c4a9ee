"""Both forms of the wire over a real socket: which one is chosen, and that they say the same."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import attrs
import orjson
import pytest

import tinkex
from tests.clients.conftest import BASE, Stage, make_datum
from tinkex import types
from tinkex.clients.negotiation import negotiate
from tinkex.config import DEFAULT_BASE_URL, ClientConfig
from tinkex.errors import ConfigurationError, InvalidInputError, RateLimitError
from tinkex.http.transport import Response, Transport
from tinkex.resources import TrainingResource
from tinkex.resources.futures import BINARY_RESULTS
from tinkex.wire.proto import RESULTS

WAIT = 30.0
PROTO = "application/x-protobuf"
BATCH = [make_datum(1, 2, 3), make_datum(4, 5)]


@attrs.frozen
class Exchange:
    """One request and its answer, as far as the form goes."""

    path: str
    sent: str
    encoding: str
    accepted: str
    received: str


@pytest.fixture
def exchanges(monkeypatch: pytest.MonkeyPatch) -> list[Exchange]:
    """What went over the wire, in order."""
    seen: list[Exchange] = []
    send = Transport.send

    def spy(self: Transport, method: str, path: str, **options: object) -> Response:
        answer = send(self, method, path, **options)
        headers = {name.lower(): value for name, value in options["headers"].items()}
        got = answer.headers.get("content-type", "")
        sent, accepted = headers.get("content-type", ""), headers.get("accept", "")
        seen.append(Exchange(path.rpartition("/")[2], sent, headers.get("content-encoding", ""), accepted, got))
        return answer

    monkeypatch.setattr(Transport, "send", spy)
    return seen


def only(exchanges: list[Exchange], path: str) -> list[Exchange]:
    """Pick the requests of one endpoint."""
    return [exchange for exchange in exchanges if exchange.path == path]


def train_and_sample(service: tinkex.ServiceClient) -> object:
    """Do a bit of everything that has two forms, and return the numbers."""
    train = service.create_lora_training_client(BASE, rank=4)
    forward = train.forward(BATCH, "cross_entropy")
    first = train.forward_backward(BATCH, "cross_entropy")
    train.optim_step(types.AdamParams())
    second = train.forward_backward(BATCH, "cross_entropy")
    sampler = train.save_weights_and_get_sampling_client()
    drawn = sampler.sample(
        types.ModelInput.from_ints([1, 2]),
        num_samples=2,
        sampling_params=types.SamplingParams(max_tokens=3),
        include_prompt_logprobs=True,
        topk_prompt_logprobs=2,
    ).result(WAIT)
    batches = [future.result(WAIT) for future in (forward, first, second)]
    outputs = [[output["logprobs"].tolist() for output in done.loss_fn_outputs] for done in batches]
    sequences = [(one.tokens, one.logprobs, one.stop_reason) for one in drawn.sequences]
    metrics = [done.metrics for done in batches]
    return outputs, metrics, sequences, drawn.prompt_logprobs, drawn.topk_prompt_logprobs


@pytest.fixture
def run(stage: Stage) -> Callable[..., object]:
    """Run the program above with settings, and return the numbers."""

    def run(**settings: object) -> object:
        with stage.new_service(**settings) as service:
            return train_and_sample(service)

    return run


def test_both_forms_say_the_same(run):
    """The numbers do not depend on how they travel."""
    assert run(wire="proto") == run(wire="json") == run(wire="auto")


def test_the_embedded_server_is_spoken_to_in_the_binary_form(run, exchanges, stage):
    """It says that it takes it, and is asked once."""
    run()
    assert len(only(exchanges, "client/config".rpartition("/")[2])) == 1
    trained = only(exchanges, "forward_backward")
    assert [exchange.sent for exchange in trained] == [PROTO] * 3
    assert only(exchanges, "forward") == []
    results = [exchange for exchange in only(exchanges, "retrieve_future") if exchange.received == PROTO]
    assert len(results) == 4  # three batches and a sample
    assert {exchange.sent for exchange in only(exchanges, "optim_step") + only(exchanges, "asample")} == {
        "application/json"
    }


def test_json_can_be_asked_for(run, exchanges):
    """Then nothing else is sent or offered, and ``forward`` has an endpoint of its own."""
    run(wire="json")
    assert {exchange.sent for exchange in exchanges} | {exchange.received for exchange in exchanges} <= {
        "application/json",
        "",
    }
    assert {exchange.accepted for exchange in exchanges} == {"application/json"}
    assert len(only(exchanges, "forward")) == 1


def test_the_binary_form_can_be_asked_for(run, exchanges, stage):
    """Then it is used even where the server does not offer it."""
    stage.faults.answer(404, path="client/config", times=100)
    run(wire="proto")
    assert {exchange.sent for exchange in only(exchanges, "forward_backward")} == {PROTO}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"detail": "there is no such path"}),
        (405, None),
        (400, {"detail": "what?"}),
        (422, {"detail": "sdk_version?"}),
        (501, None),
        (200, {}),
        (200, {"proto_write_fwdbwd": False, "sample_max_concurrent_requests": 5}),
        (200, ["no", "object"]),
    ],
)
def test_a_server_that_does_not_offer_the_binary_form_gets_json(run, exchanges, stage, status, body):
    """Servers before SDK 0.25 do not answer, or do not say that they take it; results may be binary all the same."""
    stage.faults.answer(status, body, path="client/config", times=100)
    run()
    assert {exchange.sent for exchange in only(exchanges, "forward_backward")} == {"application/json"}
    assert len(only(exchanges, "forward")) == 1


@pytest.mark.parametrize(
    "settings",
    [{"proto_write_fwdbwd": True}, {"fwdbwd_max_chunk_len": 1024}, {"custom_loss_server_side": False}],
    ids=lambda settings: next(iter(settings)),
)
def test_a_server_that_offers_the_binary_form_gets_it(run, exchanges, stage, settings):
    """It says so, or has a setting that only servers have which take nothing else."""
    stage.faults.answer(200, settings, path="client/config", times=100)
    run()
    assert {exchange.sent for exchange in only(exchanges, "forward_backward")} == {PROTO}


def test_the_hosted_service_gets_the_binary_form(stage):
    """It takes nothing else, whatever it says."""
    stage.faults.answer(200, {}, path="client/config", times=100)
    with stage.new_service() as service:
        hosted = ClientConfig(base_url=DEFAULT_BASE_URL, api_key="tml-x")
        assert negotiate(service._session.settings, hosted).wire == "proto"


def test_a_form_is_prepared_while_the_server_makes_the_model(stage, monkeypatch):
    """Loading the library then costs no time; after it, the first batch would wait for it."""
    prepared: list[str] = []
    hold = stage.engine.hold("create_model")

    def note(_: TrainingResource, wire: str) -> None:
        prepared.append(wire)
        hold.release()

    monkeypatch.setattr(TrainingResource, "prepare", note)
    with ThreadPoolExecutor(1) as pool, hold:
        # If nothing is prepared while the model is held, then nothing ends the hold in time.
        pool.submit(stage.service.create_lora_training_client, BASE).result(WAIT)
    assert ["proto"] == prepared


def test_requests_are_compressed_where_the_server_asks_for_it(run, exchanges, stage):
    """And they still say the same."""
    pytest.importorskip("zstandard")
    stage.faults.answer(200, {"proto_write_fwdbwd": True, "proto_compress_fwdbwd": True}, path="client/config", times=9)
    assert run() == run(wire="json")
    assert {(exchange.sent, exchange.encoding) for exchange in only(exchanges, "forward_backward")} == {
        (PROTO, "zstd"),
        ("application/json", ""),
    }


def test_requests_go_uncompressed_where_zstd_is_not_installed(stage, monkeypatch):
    """A server that wants compression takes it without, too."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    stage.faults.answer(200, {"proto_write_fwdbwd": True, "proto_compress_fwdbwd": True}, path="client/config", times=9)
    with stage.new_service() as service:
        assert service._session.agreement.wire == "proto"


@pytest.mark.parametrize(
    ("told", "pieces"),
    [
        ({"proto_write_fwdbwd": True}, 1),
        ({"fwdbwd_max_chunk_len": 2}, 3),
        ({"fwdbwd_max_chunk_bytes_count": 100}, 5),
        ({"fwdbwd_max_chunk_len": 0}, 5),
    ],
)
def test_batches_are_split_as_the_server_wants(exchanges, stage, told, pieces):
    """The limits of the server hold besides our own."""
    stage.faults.answer(200, told, path="client/config", times=9)
    data = [make_datum(1, 2, 3, 4) for _ in range(5)]
    with stage.new_service() as service:
        train = service.create_lora_training_client(BASE, rank=4)
        assert len(train.forward_backward(data, "cross_entropy").result(WAIT).loss_fn_outputs) == 5
    assert len(only(exchanges, "forward_backward")) == pieces


@pytest.mark.parametrize(
    ("told", "options", "in_order"),
    [
        ({"proto_write_fwdbwd": True}, {}, False),
        ({"proto_write_fwdbwd": True, "parallel_fwdbwd_chunks": False}, {}, True),
        ({"proto_write_fwdbwd": True}, {"upload_threads": 1}, True),
        ({"proto_write_fwdbwd": True}, {"wire": "proto"}, True),
        ({}, {}, True),
    ],
    ids=["asked for", "forbidden", "not wanted", "not asked", "an older server"],
)
def test_the_requests_of_a_large_batch_go_side_by_side_where_the_server_allows_it(
    stage, monkeypatch, told, options, in_order
):
    """The first comes last then, and the numbers and results are the same."""
    stage.faults.answer(200, told, path="client/config", times=9)
    numbers: list[int] = []
    send = TrainingResource.forward_backward

    def spy(self: TrainingResource, request: types.ForwardBackwardRequest, **given: object) -> object:
        promise = send(self, request, **given)
        numbers.append(request.seq_id)
        return promise

    monkeypatch.setattr(TrainingResource, "forward_backward", spy)
    data = [make_datum(*range(1, 3 + length)) for length in range(5)]
    with stage.new_service(max_chunk_len=1, **options) as service:
        train = service.create_lora_training_client(BASE, rank=4)
        step = train.forward_backward(data, "cross_entropy")
        train.optim_step(types.AdamParams()).result(WAIT)
    assert [2, 3, 4, 5, 6] == [len(output["logprobs"].data) for output in step.result().loss_fn_outputs]
    if in_order:
        assert [1, 2, 3, 4, 5] == numbers
    else:
        assert [2, 3, 4, 5, 1] == [*sorted(numbers[:4]), numbers[4]]


def test_our_limits_hold_besides_those_of_the_server(stage):
    """The smaller of the two counts."""
    told = {"fwdbwd_max_chunk_len": 5000, "fwdbwd_max_chunk_bytes_count": 100}
    stage.faults.answer(200, told, path="client/config", times=9)
    with stage.new_service(max_chunk_len=7, max_chunk_bytes=200) as service:
        agreement = service._session.agreement
    assert (agreement.max_chunk_len, agreement.max_chunk_bytes) == (7, 100)


@pytest.mark.parametrize(("wire", "pieces"), [("json", 5), ("proto", 3)])
def test_sizes_are_estimated_for_the_form(exchanges, stage, wire, pieces):
    """A number takes ten bytes of JSON and four or eight of the binary form, so that fewer requests are needed."""
    data = [make_datum(1, 2, 3, 4) for _ in range(5)]
    with stage.new_service(wire=wire, max_chunk_bytes=130) as service:
        service.create_lora_training_client(BASE, rank=4).forward_backward(data, "cross_entropy").result(WAIT)
    assert len(only(exchanges, "forward_backward")) == pieces


def test_an_image_that_the_server_would_fetch_is_refused_at_the_call(stage):
    """The error names the datum; nothing is sent, and the client goes on. In JSON the server decides."""
    chunks = [types.ImageAssetPointerChunk(location="a.png", format="png", expected_tokens=2)]
    pointer = types.Datum(model_input=types.ModelInput(chunks=chunks), loss_fn_inputs={"target_tokens": [1, 2]})
    train = stage.train()
    for call in (train.forward_backward, train.forward):
        with pytest.raises(InvalidInputError, match=r"data\[1\].model_input.chunks\[0\] is an image") as caught:
            call([make_datum(1), pointer], "cross_entropy")
        assert caught.value.index == 1
    train.forward_backward(BATCH, "cross_entropy").result(WAIT)
    assert stage.faults.count("forward_backward") == 1
    with stage.new_service(wire="json") as service:
        service._session.agreement.check_data([pointer])


def test_a_failure_is_read_as_one_in_both_forms(stage):
    """Failures are JSON, whatever was asked for."""
    for wire in ("json", "proto"):
        with stage.new_service(wire=wire) as service:
            train = service.create_lora_training_client(BASE, rank=4)
            with pytest.raises(tinkex.RequestFailedError) as caught:
                train.forward_backward([make_datum(10**6)], "cross_entropy").result(WAIT)
            assert caught.value.category == "user"


def test_a_server_that_is_busy_is_asked_again(stage):
    """What it takes is not guessed because of a 429 or 503: the question is asked again, or fails like any call."""
    stage.faults.answer(503, path="client/config", times=2)
    with stage.new_service() as service:
        assert service._session.agreement.wire == "proto"
    stage.faults.answer(429, path="client/config", times=100)
    with stage.new_service(retry=tinkex.RetryPolicy.none()) as service, pytest.raises(RateLimitError):
        service.create_lora_training_client(BASE, rank=4)


def test_a_binary_answer_where_none_was_expected_is_an_error_of_the_answer(stage):
    """Not of the caller's input, and it says what was wrong."""
    stage.faults.answer(200, {}, path="retrieve_future", headers={"Content-Type": PROTO}, times=100)
    with stage.new_service() as service:
        request = types.FutureRetrieveRequest(request_id="x")
        with pytest.raises(tinkex.APIResponseValidationError, match="OptimStepResponse has no binary form"):
            service._session.api.futures.retrieve(request, types.OptimStepResponse)
        with pytest.raises(tinkex.APIResponseValidationError, match="not a SampleResponse in binary form"):
            service._session.api.futures.retrieve(request, types.SampleResponse)


def test_the_results_with_a_binary_form_are_those_that_can_be_read():
    """The list that is at hand without protobuf is that of the decoder."""
    assert set(BINARY_RESULTS) == set(RESULTS)


@pytest.mark.parametrize("wire", ["JSON", "", None, 1, "proto+zstd"])
def test_there_are_three_choices(wire):
    """A typo is found before anything is sent."""
    with pytest.raises(ConfigurationError, match=r"wire .* must be 'auto', 'json' or 'proto'"):
        ClientConfig(wire=wire)


def test_sequences_have_ids(stage):
    """Those that the server has promised, and unique ones where it promises none."""
    sampler = stage.service.create_sampling_client(base_model=BASE)
    ask = {"num_samples": 2, "sampling_params": types.SamplingParams(max_tokens=1)}
    prompt = types.ModelInput.from_ints([1])
    done = [sampler.sample(prompt, **ask) for _ in range(2)]
    ids = [sequence.sequence_id for future in done for sequence in future.result(WAIT).sequences]
    assert len(set(ids)) == 4
    assert all(one.startswith(done[0].request_id) for one in ids[:2])
    stage.faults.answer(200, {"request_id": done[0].request_id}, path="asample", nth=1)
    again = sampler.sample(prompt, **ask)
    named = [sequence.sequence_id for sequence in again.result(WAIT).sequences]
    assert named == [f"{done[0].request_id}:0", f"{done[0].request_id}:1"]


# --- what the server refuses corrects what its settings seem to say ---------------------------------------------------

JSON = "application/json"
HINTS = {"json": {"pjwt_auth_enabled": False}, "proto": {"fwdbwd_max_chunk_len": 1024}}
MISSING = (404, {"detail": "Not Found"})
UNREADABLE = [
    (415, {"detail": "send JSON"}),
    (400, {"detail": "There was an error parsing the body"}),
    (422, {"detail": [{"type": "json_invalid", "loc": ["body", 0], "msg": "JSON decode error"}]}),
    (
        422,
        {"detail": [{"type": "model_attributes_type", "loc": ["body"], "msg": "Input should be a valid dictionary"}]},
    ),
]


def refusal(status: int, body: object) -> Response:
    """Make the answer of a server that does not take a request."""
    return Response(status=status, headers={"content-type": JSON}, content=orjson.dumps(body), elapsed=0.0)


@pytest.fixture
def takes_only(monkeypatch: pytest.MonkeyPatch, stage: Stage) -> Callable[..., list[tuple[str, str, str]]]:
    """Let the server refuse all but one form; returns the training requests: path, form, key."""

    def restrict(form: str, status: int = 415, body: object = None, hints: str | None = None) -> list:
        seen: list[tuple[str, str, str]] = []
        send = Transport.send

        def refuse(self: Transport, method: str, path: str, **options: object) -> Response:
            headers = {name.lower(): value for name, value in options["headers"].items()}
            name, sent = path.rpartition("/")[2], headers.get("content-type", "")
            if name not in ("forward", "forward_backward"):
                return send(self, method, path, **options)
            seen.append((name, sent, headers["x-idempotency-key"]))
            if name == "forward" and form == PROTO:
                return refusal(404, {"detail": "Not Found"})
            if sent != form:
                return refusal(status, body or {"detail": f"requires a body of {form}"})
            return send(self, method, path, **options)

        monkeypatch.setattr(Transport, "send", refuse)
        stage.faults.answer(200, HINTS[hints or ("json" if form == PROTO else "proto")], path="client/config", times=99)
        return seen

    return restrict


def numbers(stage: Stage, model: str) -> list[str]:
    """Return what the engine did for a model."""
    return stage.engine.operations(model)


@pytest.mark.parametrize("first", ["forward", "forward_backward"])
def test_a_refusal_of_json_turns_the_session_to_the_binary_form(stage, takes_only, caplog, first):
    """The same request is sent again with the same number and key, once; all models of the session go on with it."""
    seen = takes_only(PROTO)
    with stage.new_service() as service, caplog.at_level("INFO", "tinkex"):
        one, two = (service.create_lora_training_client(BASE, rank=4) for _ in range(2))
        getattr(one, first)(BATCH, "cross_entropy").result(WAIT)
        one.optim_step(types.AdamParams()).result(WAIT)
        two.forward(BATCH, "cross_entropy").result(WAIT)
        assert [first, "optim_step"] == numbers(stage, one.model_id)[-2:]
    path = "forward" if first == "forward" else "forward_backward"
    assert [(path, JSON), ("forward_backward", PROTO), ("forward_backward", PROTO)] == [each[:2] for each in seen]
    assert seen[0][2] == seen[1][2] != seen[2][2]
    assert 1 == sum("go in the binary form" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(("status", "body"), UNREADABLE)
def test_a_binary_request_that_is_not_read_turns_the_session_to_json(stage, takes_only, status, body):
    """The server has a setting of those that take the binary form, and does not take it."""
    seen = takes_only(JSON, status, body)
    with stage.new_service() as service:
        train = service.create_lora_training_client(BASE, rank=4)
        for _ in range(2):
            train.forward_backward(BATCH, "cross_entropy").result(WAIT)
    assert [PROTO, JSON, JSON] == [form for _, form, _ in seen]
    assert seen[0][2] == seen[1][2]


def test_requests_sent_side_by_side_turn_together(stage, takes_only):
    """Each finds out by itself, or that another has; none is lost, and each is accepted once."""
    takes_only(JSON, hints="proto")
    with stage.new_service(max_chunk_len=1) as service:
        train = service.create_lora_training_client(BASE, rank=4)
        data = [make_datum(*range(1, 3 + length)) for length in range(5)]
        for _ in range(2):
            outputs = train.forward_backward(data, "cross_entropy").result(WAIT).loss_fn_outputs
            assert [2, 3, 4, 5, 6] == [len(output["logprobs"].data) for output in outputs]
        assert 10 == train._submission.next_seq_id - 1


def test_what_the_other_form_is_refused_for_is_what_the_program_hears(stage, takes_only, datum):
    """A server that takes only the binary form refuses the loss: its word on the loss counts, not that on the form."""
    takes_only(PROTO)
    with stage.new_service() as service:
        train = service.create_lora_training_client(BASE, rank=4)
        with pytest.raises(tinkex.RequestFailedError, match="token"):
            train.forward_backward([make_datum(10**6)], "cross_entropy").result(WAIT)
        train.forward_backward(BATCH, "cross_entropy").result(WAIT)
        assert "proto" == service._session.agreement.wire


def test_a_server_that_takes_neither_form_is_heard_on_the_first(stage, takes_only):
    """And the guess stays, so that nothing goes back and forth."""
    seen = takes_only("text/plain", 415, {"detail": "I take letters"}, hints="json")
    with stage.new_service() as service:
        train = service.create_lora_training_client(BASE, rank=4)
        error = train.forward_backward(BATCH, "cross_entropy").exception(WAIT)
        assert (415, "json") == (error.status_code, service._session.agreement.wire)
        assert "TINKEX_WIRE" not in str(error)
    assert [JSON, PROTO] == [form for _, form, _ in seen]


def test_a_server_of_json_without_forward_is_said_to_lack_it(stage, takes_only):
    """Its 404 looks like that of a server of the binary form, which then would have taken the other request."""
    stage.faults.answer(*MISSING, path="forward", times=9)
    stage.faults.answer(200, {}, path="client/config", times=9)
    with stage.new_service() as service:
        train = service.create_lora_training_client(BASE, rank=4)
        train.forward_backward(BATCH, "cross_entropy").result(WAIT)
        assert 404 == train.forward(BATCH, "cross_entropy").exception(WAIT).status_code
        assert "json" == service._session.agreement.wire


@pytest.mark.parametrize("wire", ["json", "proto"])
def test_a_form_that_was_chosen_by_hand_is_kept_and_its_refusal_names_the_setting(stage, takes_only, wire):
    """The server may be right, so the way out is said."""
    seen = takes_only({"json": PROTO, "proto": JSON}[wire])
    with stage.new_service(wire=wire) as service:
        train = service.create_lora_training_client(BASE, rank=4)
        error = train.forward_backward(BATCH, "cross_entropy").exception(WAIT)
    assert f"wire='{wire}'" in str(error)
    assert "TINKEX_WIRE" in str(error)
    assert 1 == len(seen)


def test_a_batch_that_is_too_large_is_halved_and_the_next_is_split_from_the_start(stage, monkeypatch):
    """A proxy before the server has a limit of its own; the numbers stay contiguous, and nothing is lost."""
    sizes: list[tuple[int, int]] = []
    send = TrainingResource.forward_backward

    def limited(self: TrainingResource, request: types.ForwardBackwardRequest, **given: object) -> object:
        data = request.forward_backward_input.data
        sizes.append((request.seq_id, len(data)))
        if len(data) > 2:
            raise tinkex.errors.error_from_status("HTTP 413", status_code=413)
        return send(self, request, **given)

    monkeypatch.setattr(TrainingResource, "forward_backward", limited)
    train = stage.train()
    data = [make_datum(*range(1, 3 + length)) for length in range(5)]
    for _ in range(2):
        outputs = train.forward_backward(data, "cross_entropy").result(WAIT).loss_fn_outputs
        assert [2, 3, 4, 5, 6] == [len(output["logprobs"].data) for output in outputs]
    assert [(1, 5), (1, 2), (2, 3), (2, 1), (3, 2)] == sizes[:5]
    assert all(count <= 2 for _, count in sizes[5:])


def test_one_datum_that_is_too_large_is_an_error(stage):
    """There is nothing to halve."""
    stage.faults.answer(413, {"detail": "too large"}, path="forward_backward")
    assert 413 == stage.train().forward_backward(BATCH[:1], "cross_entropy").exception(WAIT).status_code


def test_a_server_that_restores_into_models_only_is_given_one(stage):
    """Its settings said that it makes the model itself; asked once, it is not asked again."""
    path = stage.train().save_state("one").result(WAIT).path
    refusal = {"detail": [{"type": "missing", "loc": ["body", "model_id"], "msg": "Field required"}]}
    stage.faults.answer(422, refusal, path="load_weights")
    with stage.new_service() as service:
        before = stage.faults.count("load_weights")
        for _ in range(2):
            service.create_training_client_from_state(path).forward(BATCH, "cross_entropy").result(WAIT)
        assert 3 == stage.faults.count("load_weights") - before
