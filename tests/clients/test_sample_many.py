"""Many samples in one call: in a window, in order or as they end, and given up when nobody wants them any more."""

from __future__ import annotations

import contextlib
import itertools
import signal
import sys
import threading
import traceback

import pytest

import tinkex
from tests.clients.conftest import BASE, until
from tinkex import types
from tinkex.errors import InvalidInputError

WAIT = 30.0
BAD = 999_999
PARAMS = types.SamplingParams(max_tokens=1)


def prompt(number: int) -> types.ModelInput:
    return types.ModelInput.from_ints([number])


def first_token(response: types.SampleResponse) -> int:
    return response.sequences[0].tokens[0]


@pytest.fixture
def sampler(stage):
    """A sampling client."""
    return stage.service.create_sampling_client(base_model=BASE)


@pytest.fixture
def counted():
    """Makes generators of prompts without end that count how many were taken."""

    class Counted:
        taken = 0

        def __iter__(self):
            for number in itertools.count():
                self.taken += 1
                yield prompt(number % 900)

    return Counted()


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("window", [1, 7, 1000])
def test_every_prompt_has_its_result_and_its_index(sampler, ordered, window):
    """Whatever the window; in the order of the prompts if that is asked for."""
    prompts = (prompt(number) for number in range(50))
    pairs = list(sampler.sample_many(prompts, 1, PARAMS, window=window, ordered=ordered))
    assert {number: number for number in range(50)} == {index: first_token(answer) for index, answer in pairs}
    assert 50 == len(pairs)
    assert not ordered or list(range(50)) == [index for index, _ in pairs]


def test_what_is_asked_for_is_asked_for_each(sampler):
    """Number of sequences, parameters and questions reach every request; the parameters have a default."""
    pairs = sampler.sample_many([types.ModelInput.from_ints([1, 2])] * 3, 2, include_prompt_logprobs=True)
    for _, answer in pairs:
        assert (2, [None, -1.0]) == (len(answer.sequences), answer.prompt_logprobs)
        assert 1 < len(answer.sequences[0].tokens)


def test_no_prompts_give_no_results(stage, sampler):
    """An empty iterable is no error, and nothing is sent."""
    assert [] == list(sampler.sample_many([]))
    assert 0 == stage.faults.count("asample")


def test_those_that_end_first_come_first(stage, sampler):
    """Without an order, one that the server holds does not hold up the others."""
    gate = stage.faults.stall(path="asample")
    pairs = sampler.sample_many(map(prompt, range(5)), 1, PARAMS, ordered=False)
    early = [index for index, _ in itertools.islice(pairs, 4)]
    assert 4 == len(set(early))
    gate.release()
    assert {*range(5)} - {*early} == {index for index, _ in pairs}


@pytest.mark.parametrize("ordered", [True, False])
def test_a_generator_without_end_is_read_no_further_than_the_window(stage, sampler, counted, ordered):
    """Closing it cancels what was submitted and not handed over; the server is told."""
    pairs = sampler.sample_many(counted, 1, PARAMS, window=20, ordered=ordered)
    assert 0 == counted.taken
    for taken in range(10):
        next(pairs)
        assert 20 + taken == counted.taken
    until(lambda: [] == stage.service._session.pending())
    with stage.engine.hold("sample") as held:
        for _ in range(19):  # those of the window have ended; those that are submitted for them are held
            next(pairs)
        assert held.reached.wait(WAIT)
        left = [future for future in stage.service._session.pending() if future.operation == "sample"]
        assert 19 == len(left)
        pairs.close()
        assert all(future.cancelled() for future in left)
    assert 48 == counted.taken
    assert [] == list(pairs)


def test_leaving_a_loop_gives_up_the_rest(stage, sampler, counted):
    """``break`` is enough."""
    for index, _ in sampler.sample_many(counted, 1, PARAMS, window=5):
        if index == 3:
            break
    until(lambda: [] == stage.service._session.pending())
    assert 8 == counted.taken


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("bad", [prompt(BAD), types.ModelInput.from_ints([]), "not a prompt"])
def test_a_failure_names_its_prompt_and_gives_up_those_behind_it(stage, sampler, ordered, bad):
    """Found by the server or before: the error is the one that ``sample`` would give, with the index."""
    prompts = [prompt(1), prompt(2), bad, *map(prompt, range(3, 50))]
    pairs = sampler.sample_many(prompts, 1, PARAMS, window=2, ordered=ordered)
    handed_over = []
    with pytest.raises((tinkex.RequestFailedError, InvalidInputError), match=r"^prompts\[2\]: ") as failure:
        handed_over.extend(pairs)
    assert 2 == failure.value.index
    until(lambda: [] == stage.service._session.pending())
    assert 0 < stage.faults.count("asample") <= len(handed_over) + 2


@pytest.mark.parametrize("ordered", [True, False])
def test_failures_can_be_handed_over_instead(sampler, ordered):
    """Each in its place, and all others have their results."""
    prompts = [prompt(0), prompt(BAD), prompt(2), types.ModelInput.from_ints([]), prompt(4)]
    outcomes = dict(sampler.sample_many(prompts, 1, PARAMS, ordered=ordered, return_exceptions=True))
    assert [0, 2, 4] == [first_token(outcomes[index]) for index in (0, 2, 4)]
    assert (tinkex.RequestFailedError, InvalidInputError) == (type(outcomes[1]), type(outcomes[3]))
    assert [1, 3] == [outcomes[index].index for index in (1, 3)]
    assert "prompts[1]: " in str(outcomes[1])


def test_a_closed_client_ends_it_even_if_failures_are_handed_over(stage, sampler):
    """It concerns all prompts, so it is no outcome of one of them."""
    gate = stage.faults.stall(path="asample")
    pairs = sampler.sample_many(map(prompt, range(3)), 1, PARAMS, ordered=False, return_exceptions=True)
    assert 2 == len(list(itertools.islice(pairs, 2)))
    stage.service.close(drain=False, timeout=0)
    with pytest.raises(tinkex.ClientClosedError):
        next(pairs)
    gate.release()


def test_an_error_of_the_iterable_passes(stage, sampler):
    """It is the caller's, unchanged; what was submitted is given up."""

    def prompts():
        yield prompt(1)
        raise ValueError("no more prompts")

    with pytest.raises(ValueError, match=r"^no more prompts$"):
        list(sampler.sample_many(prompts(), 1, PARAMS))
    until(lambda: [] == stage.service._session.pending())


@pytest.mark.skipif(sys.platform == "win32", reason="signals cannot be sent to a thread")
@pytest.mark.parametrize("ordered", [True, False])
def test_ctrl_c_ends_the_wait_and_gives_up_everything(stage, sampler, counted, ordered):
    """A blocked ``next`` is interrupted, and all futures of the window are cancelled, also the one waited for."""
    assert threading.current_thread() is threading.main_thread()
    main, waiting = threading.main_thread().ident, []

    def is_blocked():
        names = {frame.f_code.co_name for frame, _ in traceback.walk_stack(sys._current_frames()[main])}
        return names & {"_outcome", "_next_of"}

    def interrupt():
        held.reached.wait(WAIT)
        until(is_blocked)
        until(lambda: all(future.running() for future in stage.service._session.pending()))
        waiting.extend(stage.service._session.pending())
        signal.pthread_kill(main, signal.SIGINT)

    with stage.engine.hold("sample") as held:
        helper = threading.Thread(target=interrupt)
        helper.start()
        with pytest.raises(KeyboardInterrupt):
            next(sampler.sample_many(counted, 1, PARAMS, window=4, ordered=ordered))
        helper.join(WAIT)
        assert [True] * 4 == [future.cancelled() for future in waiting]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"prompts": 3}, "prompts"),
        ({"num_samples": 0}, "num_samples"),
        ({"sampling_params": "hot"}, "sampling_params"),
        ({"window": 0}, "window"),
        ({"window": True}, "window"),
        ({"window": 1.5}, "window"),
    ],
)
def test_what_is_wrong_for_every_prompt_is_refused_at_the_call(sampler, options, field):
    """Not when the first result is asked for, and not once for each."""
    given = {"prompts": [prompt(1)], **options}
    with pytest.raises(InvalidInputError) as failure:
        sampler.sample_many(**given)
    assert field == failure.value.field


def test_an_unknown_argument_is_refused_at_the_call(sampler):
    """As if they were all spelled out."""
    with pytest.raises(TypeError, match="include_logprobs"):
        sampler.sample_many([prompt(1)], include_logprobs=True)


def test_it_starts_no_thread_of_its_own(stage, sampler):
    """The threads are those that single samples use."""
    with contextlib.closing(sampler.sample_many(map(prompt, range(300)), 1, PARAMS)) as pairs:
        next(pairs)
        known = ("tinkex-sample", "tinkex-retrieve", "tinkex-poller", "tinkex-heartbeat", "tinkex-call")
        server = ("tinkex-server", "tinkex-engine")
        names = [thread.name for thread in threading.enumerate() if thread.name.startswith("tinkex-")]
        assert [] == [name for name in names if not name.startswith(known + server)]
