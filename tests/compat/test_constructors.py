"""How programs make the SDK's classes themselves: every constructor and method against its signature."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import warnings

import numpy as np
import pytest

import tinkex
from tests.compat.official import CONSTRUCTORS, METHODS
from tinkex.compat import install, uninstall
from tinkex.compat.constructors import _POSITIONS as POSITIONS

DIFFERENT = {
    "Datum": "a datum without inputs could not be computed, so they must be given",
    "LossHandle": "made by ServiceClient.create_custom_loss; by name here",
    "OptimStepRequest": "the parameters stand where they travel: adam_params= or optimizer_params=",
    "SamplingClient": "made by ServiceClient.create_sampling_client",
    "TensorData": "a tensor of nothing has no use, so data must be given",
    "Timeout.as_dict": "httpx has it, no program asks for it",
    "TrainingClient": "made by ServiceClient.create_lora_training_client",
}
"""What is made in another way on purpose, and why."""
EITHER_ORDER = ("APIConnectionError", "APITimeoutError")
"""Errors that tell request and message apart by what they are: tests/test_errors.py makes them in every way."""


def signatures(text: str) -> dict[str, list[str]]:
    """Read the table: a line that is indented belongs to the one before."""
    lines = text.replace("\n    ", " ").strip().splitlines()
    return {name: words.split() for name, _, words in (line.partition(":") for line in lines)}


def faults(ours: inspect.Signature, wanted: list[str], given_first: int) -> list[str]:
    """Say what of a call of the SDK would not be taken."""
    cut = wanted.index("*") if "*" in wanted else len(wanted)
    by_position, by_name = wanted[:cut], wanted[cut + 1 :]
    parameters = list(ours.parameters.values())[given_first:]
    anything = any(one.kind is one.VAR_KEYWORD for one in parameters)
    required = {word for word in by_position + by_name if not word.endswith("=")}
    takes = [one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.POSITIONAL_ONLY)]
    names = [word.rstrip("=") for word in by_position]
    found = [] if takes[: len(names)] == names or anything else [f"by position {takes}, not {names}"]
    unknown = {word.rstrip("=") for word in by_position + by_name} - {one.name for one in parameters}
    found += [] if anything or not unknown else [f"does not know {sorted(unknown)}"]
    needs = {one.name for one in parameters if one.default is one.empty and one.kind < one.VAR_KEYWORD} - required
    return found + [f"also needs {sorted(needs)}"] * bool(needs - {"args"})


@pytest.mark.parametrize(("name", "wanted"), signatures(CONSTRUCTORS).items())
def test_constructors_are_those_of_the_sdk(tinker, name: str, wanted: list[str]) -> None:
    """Each takes what the SDK's takes, by position too, and needs no more; or DIFFERENT says why not."""
    cls = getattr(tinker, name) if hasattr(tinker, name) else getattr(tinker.types, name)
    if name in POSITIONS:
        assert [word.rstrip("=") for word in wanted] == list(POSITIONS[name])
    elif name not in EITHER_ORDER:
        assert bool(faults(inspect.signature(cls), wanted, 0)) == (name in DIFFERENT)


@pytest.mark.parametrize(("name", "wanted"), signatures(METHODS).items())
def test_methods_of_values_are_those_of_the_sdk(tinker, name: str, wanted: list[str]) -> None:
    """The same of what values can be asked."""
    cls, _, method = name.partition(".")
    owner = getattr(tinker.types, cls) if hasattr(tinker.types, cls) else getattr(tinker, cls)
    if name in DIFFERENT:
        assert not hasattr(owner, method)
        return
    is_bound = isinstance(inspect.getattr_static(owner, method), (classmethod, staticmethod))
    assert not faults(inspect.signature(getattr(owner, method)), wanted, 0 if is_bound else 1)


# --- What constructors take besides ----------------------------------------------------------------------------------


def test_a_sequence_is_made_of_arrays_by_position(tinker) -> None:
    """What is an array in the SDK is a list here, from either; matrices of the likeliest tokens become rows."""
    matrices = tinker.types.TopkLogprobs.from_rows([[(1, -0.5), (2, -1.0)], None])
    arrays = np.array([1, 2]), np.array([-0.5, -1.0], "float32"), matrices
    made = tinker.SampledSequence("stop", "s", *arrays)
    assert made == tinker.SampledSequence(
        stop_reason="stop", sequence_id="s", tokens_np=arrays[0], logprobs_np=arrays[1], topk_logprobs_np=matrices
    )
    assert (made.tokens, made.logprobs, made.sequence_id) == ([1, 2], [-0.5, -1.0], "s")
    assert made.topk_logprobs == [[(1, -0.5), (2, -1.0)], None]
    assert tinker.SampledSequence("length", "s", None).tokens == []
    answer = tinker.SampleResponse([made], np.array([np.nan, -1.0], "float32"), matrices)
    assert (answer.sequences, answer.prompt_logprobs) == ([made], [None, -1.0])
    assert answer.topk_prompt_logprobs == made.topk_logprobs
    with pytest.raises(TypeError, match=r"SampledSequence\(\) takes 5 arguments by position, got 6"):
        tinker.SampledSequence("stop", "s", None, None, None, None)
    with pytest.raises(TypeError, match="unexpected keyword argument 'logits'"):
        tinker.SampledSequence("stop", "s", None, logits=3)


def test_fakes_give_lists_by_the_private_names_of_the_sdk(tinker) -> None:
    """They stand beside the arrays there; whichever is given counts."""
    by_lists = {"_tokens_list": [1, 2], "_logprobs_list": [-0.5, -1.0], "tokens_np": None}
    made = tinker.SampledSequence("stop", "s", **by_lists)
    assert (made.tokens, made.logprobs) == ([1, 2], [-0.5, -1.0])
    assert tinker.SampledSequence("stop", "s", np.array([1, 2]), _tokens_list=None).tokens == [1, 2]
    assert tinker.SampleResponse([made], _prompt_logprobs_list=[None, -1.0]).prompt_logprobs == [None, -1.0]


def test_results_are_made_by_position(tinker) -> None:
    """As fakes in tests of programs do."""
    output = tinker.ForwardBackwardOutput("x", [], {"loss:sum": 1.0})
    assert output == tinker.ForwardBackwardOutput(loss_fn_output_type="x", loss_fn_outputs=[], metrics=output.metrics)
    batch = tinker.types.ForwardBackwardInput([], "ppo", {"beta": 1})
    assert tinker.types.ForwardRequest(batch, "m", 3).seq_id == 3


def test_an_unknown_setting_is_ignored_with_a_warning(tinker) -> None:
    """What the SDK ignores of a sampler's parameters and of a server's words; a warning names it."""
    with pytest.warns(FutureWarning, match="SamplingParams ignores unsupported arguments: frequency_penalty, n"):
        params = tinker.SamplingParams(max_tokens=1, n=2, frequency_penalty=0.5)
    assert params == tinker.SamplingParams(max_tokens=1)
    with pytest.warns(FutureWarning, match="Cursor ignores unsupported arguments: more"):
        tinker.types.Cursor(offset=0, limit=1, total_count=1, more=True)


def test_the_warning_is_given_once_for_each_place(tinker) -> None:
    """A loop does not repeat it, and it points at the program."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            tinker.SamplingParams(n=2)
    assert [(warning.category, warning.filename) for warning in caught] == [(FutureWarning, __file__)]


def test_a_mistyped_parameter_is_refused_as_the_sdk_does(tinker) -> None:
    """What the SDK refuses is not ignored: a learning rate of another name would be lost."""
    with pytest.raises(TypeError, match="learning_rat"):
        tinker.AdamParams(learning_rat=1e-3)


def test_nothing_is_ignored_without_install() -> None:
    """By itself, tinkex refuses what it does not know, before and after."""
    for change in (lambda: None, lambda: (install(), uninstall())):
        change()
        with pytest.raises(TypeError, match="unexpected keyword argument 'n'"):
            tinkex.SamplingParams(n=2)
        with pytest.raises(TypeError, match="unexpected keyword argument 'tokens_np'"):
            tinkex.SampledSequence(stop_reason="stop", tokens_np=np.array([1]))
        with pytest.raises(tinkex.ConfigurationError, match="unknown setting http_client"):
            tinkex.ServiceClient(base_url="http://127.0.0.1:9", http_client=None)


class Limits:
    """What an ``httpx.Timeout`` says."""

    connect, read, write, pool = 2.0, 30.0, 5.0, None


def test_settings_of_a_service_with_a_meaning_are_honoured(tinker) -> None:
    """Time limits and the number of retries of SDKs that took them; a number, or a limit for each phase."""
    url = "http://127.0.0.1:9"
    config = tinker.ServiceClient(base_url=url, timeout=Limits(), max_retries=2).config
    assert (config.timeout, config.connect_timeout, config.retry.max_attempts) == (30.0, 2.0, 3)
    assert tinker.ServiceClient(base_url=url, timeout=7).config.timeout == 7
    assert tinker.ServiceClient(base_url=url, timeout=tinker.Timeout(7, connect=3)).config.connect_timeout == 3
    assert tinker.ServiceClient(base_url=url, timeout=tinker.Timeout(7)).config.connect_timeout == 7
    config = tinker.ServiceClient(base_url=url, timeout=None, default_headers={"a": "b"}).config
    assert (config.timeout, config.retry, config.default_headers) == (60.0, tinkex.RetryPolicy(), {"a": "b"})


def test_settings_of_a_service_without_one_are_ignored_with_a_warning(tinker) -> None:
    """As the SDK ignores them."""
    with pytest.warns(FutureWarning, match="ServiceClient ignores unsupported arguments: _strict.*, http_client"):
        service = tinker.ServiceClient(
            base_url="http://127.0.0.1:9", http_client=None, _strict_response_validation=True
        )
    assert service.config.base_url == "http://127.0.0.1:9"


# --- Futures that programs make --------------------------------------------------------------------------------------


def test_a_future_of_the_standard_library_can_be_awaited(tinker) -> None:
    """result, await, result_async, callbacks and wait give what the wrapped future gives, before and after."""
    inner: concurrent.futures.Future[int] = concurrent.futures.Future()
    outer, called = tinker.lib.public_interfaces.AwaitableConcurrentFuture(inner), []
    outer.add_done_callback(called.append)
    assert (outer.future(), outer.done(), outer.running()) == (inner, False, False)
    with pytest.raises(TimeoutError):
        outer.result(timeout=0)
    assert inner.set_running_or_notify_cancel()
    assert outer.running()
    inner.set_result(3)

    async def ways() -> list[int]:
        return [await outer, await outer.result_async(timeout=1), await outer.coroutine()]

    assert asyncio.run(ways()) == [3, 3, 3]
    assert (outer.result(), outer.exception(), outer.done(), called) == (3, None, True, [outer])
    assert concurrent.futures.wait([outer], timeout=5).done == {outer}
    later = tinker.lib.public_interfaces.AwaitableConcurrentFuture(inner)
    assert later.result(timeout=0) == 3


def test_a_wrapped_failure_and_a_wrapped_cancellation_come_through(tinker) -> None:
    """The same exception, and cancelled both ways."""
    failed: concurrent.futures.Future[int] = concurrent.futures.Future()
    failed.set_exception(KeyError("x"))
    with pytest.raises(KeyError):
        tinker.lib.public_interfaces.AwaitableConcurrentFuture(failed).result(timeout=1)
    inner: concurrent.futures.Future[int] = concurrent.futures.Future()
    outer = tinker.lib.public_interfaces.AwaitableConcurrentFuture(inner)
    assert outer.cancel()
    assert inner.cancelled()
    assert outer.cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        outer.result(timeout=1)
    assert concurrent.futures.wait([outer], timeout=5).done == {outer}


def test_what_is_no_future_is_refused(tinker) -> None:
    """A mistake is reported where it is made."""
    with pytest.raises(TypeError, match=r"must be a concurrent\.futures\.Future, got 3"):
        tinker.lib.public_interfaces.AwaitableConcurrentFuture(3)


def test_every_future_is_one_of_the_sdks(tinker, service) -> None:
    """Programs ask with isinstance, of those that they were given too."""
    future = service.create_rest_client().list_sessions()
    assert isinstance(future, tinker.lib.public_interfaces.AwaitableConcurrentFuture)
    wrapped = tinker.lib.public_interfaces.AwaitableConcurrentFuture(future)
    assert isinstance(wrapped, tinker.APIFuture)
    assert wrapped.result(timeout=10) == future.result()


def test_the_future_of_a_client_becomes_the_client(tinker, service) -> None:
    """Whoever wraps a client's future as the SDK does has the client, which is ready."""
    training = service.create_lora_training_client("acme/small", rank=4)
    sampling = training.save_weights_and_get_sampling_client()
    assert tinker.BackcompatTrainingClientFuture(training.future()) is training
    assert tinker.BackcompatSamplingClientFuture(sampling.future()).result() is sampling
    assert isinstance(training, tinker.BackcompatTrainingClientFuture)
    assert not isinstance(training, tinker.BackcompatSamplingClientFuture)


def test_a_client_without_a_holder_says_so(tinker, service) -> None:
    """Whoever reaches into the SDK finds nothing, and is told why where that is an error."""
    assert getattr(service, "holder", None) is None
    with pytest.raises(AttributeError, match="'ServiceClient' by tinkex has no 'holder': there is no event loop"):
        service.holder  # noqa: B018 - the point is the error
