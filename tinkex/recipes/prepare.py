"""From a file and settings to everything a run needs, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from tinkex.data import canonical_name
from tinkex.errors import InvalidInputError
from tinkex.recipes.chat_data import ChatRenderer, Conversation, Example, read_chat_file
from tinkex.recipes.plan import Plan, SFTSettings, split_holdout
from tinkex.recipes.progress import Reporter

if TYPE_CHECKING:
    from tinkex.clients import SamplingClient, ServiceClient

__all__ = ["Prepared", "prepare"]

_LINES_SHOWN = 5


@attrs.frozen(kw_only=True, slots=True)
class Prepared:
    """A run that can begin.

    Attributes:
        settings: How to train.
        plan: Which examples each step sees, and its learning rate.
        examples: What is learned; positions in it are the plan's.
        held_out: What is asked before and after; empty if nothing is.
        question: A prompt of the file, to try the model with.
        renderer: Renders prompts and reads answers.
        base_sampler: Samples from the base model.
        context: Longest sequence of the model in tokens, None if the server does not say.
    """

    settings: SFTSettings
    plan: Plan
    examples: list[Example]
    held_out: list[Conversation]
    question: str
    renderer: ChatRenderer
    base_sampler: SamplingClient
    context: int | None


def prepare(service: ServiceClient, data_file: str | Path, settings: SFTSettings, reporter: Reporter) -> Prepared:
    """Read the file and plan the run; the same file and settings give the same plan.

    Raises:
        InvalidInputError: The file or a setting cannot be used.
        TinkexError: The server could not be asked about its model.
    """
    conversations = read_chat_file(data_file)
    reporter.phase(f"looking up {settings.base_model}")
    base_sampler = service.create_sampling_client(base_model=settings.base_model)
    renderer = ChatRenderer(base_sampler.get_tokenizer())
    context = _context_length(service, settings.base_model)
    reporter.phase(f"rendering {len(conversations)} conversations")
    rendered = {conversation.line: renderer.render(conversation) for conversation in conversations}
    fitting = _only_fitting(conversations, rendered, context, settings, reporter)
    train, held_out = split_holdout(fitting, settings.holdout, settings.seed)
    examples = [example for conversation in train for example in rendered[conversation.line]]
    return Prepared(
        settings=settings,
        plan=Plan.of(settings, len(examples)),
        examples=examples,
        held_out=held_out if settings.evaluate else [],
        question=(held_out or train)[0].prompt[-1].content,
        renderer=renderer,
        base_sampler=base_sampler,
        context=context,
    )


def _context_length(service: ServiceClient, base_model: str) -> int | None:
    offered = service.get_server_capabilities().supported_models
    lengths = {canonical_name(model.model_name or ""): model.max_context_length for model in offered}
    return lengths.get(canonical_name(base_model))


def _only_fitting(
    conversations: Sequence[Conversation],
    rendered: dict[int, list[Example]],
    context: int | None,
    settings: SFTSettings,
    reporter: Reporter,
) -> list[Conversation]:
    """Return the conversations that fit the context; refuse others, or leave them out as the settings say."""
    lengths = {line: max(example.length for example in examples) for line, examples in rendered.items()}
    too_long = [line for line, length in lengths.items() if context is not None and length > context]
    if not too_long:
        return list(conversations)
    where = "lines " if len(too_long) > 1 else "line "
    where += ", ".join(map(str, too_long[:_LINES_SHOWN])) + (", ..." if len(too_long) > _LINES_SHOWN else "")
    longest = max(lengths[line] for line in too_long)
    what = (
        f"{len(too_long)} of {len(conversations)} conversations ({where}) are longer than the {context} "
        f"tokens that {settings.base_model} can read, the longest has {longest}"
    )
    if len(too_long) == len(conversations):
        raise InvalidInputError(f"{what}; use shorter ones or another model", field="file")
    if not settings.skip_long:
        way_out = "shorten them, or leave them out with --skip-long (skip_long=True)"
        raise InvalidInputError(f"{what}; {way_out}", field="file")
    reporter.note(f"left out: {what}")
    left_out = set(too_long)
    return [conversation for conversation in conversations if conversation.line not in left_out]
