"""Asking the held-out prompts: greedy answers, counted if they are exactly the expected ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from tinkex.recipes.prepare import Prepared
from tinkex.recipes.progress import Reporter, wait_for
from tinkex.types import ModelInput, SamplingParams

if TYPE_CHECKING:
    from tinkex.clients import SamplingClient

__all__ = ["Answer", "ask_held_out", "count_exact"]

SPARE_TOKENS = 4
"""Tokens sampled beyond the longest expected answer, so that an answer that is too long shows as such."""


@attrs.frozen(kw_only=True, slots=True)
class Answer:
    """What the model said to a held-out prompt.

    Attributes:
        prompt: The last message before the answer.
        expected: The answer in the file.
        said: The answer of the model.
    """

    prompt: str
    expected: str
    said: str

    @property
    def exact(self) -> bool:
        """True if it is the expected one, blanks at the ends aside."""
        return self.said.strip() == self.expected.strip()


def count_exact(answers: Sequence[Answer]) -> int:
    """Return how many answers are exactly the expected ones."""
    return sum(answer.exact for answer in answers)


def ask_held_out(sampler: SamplingClient, run: Prepared, reporter: Reporter) -> list[Answer]:
    """Ask the last question of each held-out conversation, all at once, and wait for the answers.

    Args:
        sampler: Whom to ask.
        run: Holds the conversations.
        reporter: Hears of each answer.

    Returns:
        The answers, in the order of the conversations.

    Raises:
        TinkexError: A sample failed.
    """
    stop = run.renderer.stop
    prompts = [run.renderer.render_prompt(item.prompt, item.line) for item in run.held_out]
    longest = run.settings.max_tokens or _longest_answer(run)
    futures = [
        sampler.sample(
            ModelInput.from_ints(prompt),
            1,
            SamplingParams(max_tokens=_room(longest, len(prompt), run.context), temperature=0.0, stop=stop),
        )
        for prompt in prompts
    ]
    answers = []
    for item, future in zip(run.held_out, futures, strict=True):
        said = run.renderer.decode(wait_for(future, reporter).sequences[0].tokens)
        answers.append(Answer(prompt=item.prompt[-1].content, expected=item.answer, said=said))
        reporter.answered()
    return answers


def _longest_answer(run: Prepared) -> int:
    return max(len(run.renderer.answer_tokens(conversation)) for conversation in run.held_out) + SPARE_TOKENS


def _room(wanted: int, prompt: int, context: int | None) -> int:
    return wanted if context is None else max(1, min(wanted, context - prompt))
