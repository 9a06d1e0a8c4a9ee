"""Many samples: submitted a window at a time, handed over one by one."""

from __future__ import annotations

import functools
import itertools
import queue
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypedDict, TypeVar

from tinkex.errors import InvalidInputError, LifecycleError, TinkexError
from tinkex.pipeline.futures import APIFuture, failed

__all__ = ["Questions", "check_questions", "draw_each"]

T = TypeVar("T")
P = TypeVar("P")

_LOOK_UP_S = 1.0
"""A wait without an end cannot be interrupted with Ctrl-C on Windows."""


class Questions(TypedDict, total=False):
    """What can be asked about every one of many prompts; see ``SamplingClient.sample``."""

    include_prompt_logprobs: bool
    topk_prompt_logprobs: int
    topk_sample_logprobs: int
    prompt_alt_tokens_k: int
    prompt_logprobs_last_n: int | None


def check_questions(questions: Questions) -> None:
    """Refuse a question that ``sample_many`` does not know, as a call with the wrong argument would be."""
    unknown = ", ".join(sorted(set(questions) - set(Questions.__annotations__)))
    if unknown:
        raise TypeError(f"sample_many() got an unexpected argument: {unknown}")


def draw_each(
    prompts: Iterable[P],
    submit: Callable[[P], APIFuture[T]],
    *,
    window: int,
    ordered: bool,
    return_exceptions: bool,
) -> Iterator[tuple[int, T | Exception]]:
    """Submit a call for each prompt, at most ``window`` more than were handed over, and hand over what they give.

    Whatever ends it, an error, Ctrl-C or ``close()``, what was submitted is cancelled as far as that is possible.

    Args:
        prompts: Read as far as there is room in the window.
        submit: Makes the call. An ``InvalidInputError`` counts as its outcome.
        window: Calls that were submitted and not handed over, at most.
        ordered: Hand over in the order of the prompts, else as they end.
        return_exceptions: Hand over errors instead of raising them.

    Yields:
        The index of the prompt, and the outcome.
    """
    todo, waiting = enumerate(prompts), dict[int, APIFuture[T]]()
    ended: queue.SimpleQueue[int] = queue.SimpleQueue()
    try:
        while True:
            for index, prompt in itertools.islice(todo, window - len(waiting)):
                waiting[index] = future = _submitted(submit, prompt)
                if not ordered:
                    future._when_done(functools.partial(_note, ended, index))
            if not waiting:
                return
            index = next(iter(waiting)) if ordered else _next_of(ended)
            outcome = _outcome(waiting[index], index, return_exceptions)
            del waiting[index]
            yield index, outcome
    finally:
        for future in waiting.values():
            future.cancel()


def _submitted(submit: Callable[[P], APIFuture[T]], prompt: P) -> APIFuture[T]:
    try:
        return submit(prompt)
    except InvalidInputError as error:
        # In its turn: those before it are under way.
        return failed("sample", error)


def _note(ended: queue.SimpleQueue[int], index: int, _: Any) -> None:
    ended.put(index)


def _next_of(ended: queue.SimpleQueue[int]) -> int:
    while True:
        try:
            return ended.get(timeout=_LOOK_UP_S)
        except queue.Empty:
            continue


def _outcome(future: APIFuture[T], index: int, return_exceptions: bool) -> T | Exception:
    try:
        return future.result()
    except LifecycleError:
        raise  # of the client: it concerns all prompts
    except Exception as error:
        if isinstance(error, TinkexError):
            error.index, error.message = index, f"prompts[{index}]: {error.message}"
        if not return_exceptions:
            raise
        return error
