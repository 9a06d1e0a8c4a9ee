"""Chat data: a JSONL file in, token ids with loss weights out.

A line is ``{"messages": [{"role": ..., "content": ...}, ...]}`` or ``{"prompt": ..., "completion": ...}``;
a file may mix both. Other keys of a line are ignored. A line that cannot be used is an error, never a silent
loss of data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from tinkex.errors import InvalidInputError
from tinkex.types import Datum, ModelInput

__all__ = ["ChatRenderer", "Conversation", "Example", "Message", "read_chat_file"]

ROLES = ("system", "user", "assistant")
FORMATS = '{"messages": [{"role": "user", "content": ...}, ...]} or {"prompt": ..., "completion": ...}'
_BAD_LINES_SHOWN = 5


@attrs.frozen(slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@attrs.frozen(kw_only=True, slots=True)
class Conversation:
    """Turns that end with an answer.

    Attributes:
        messages: The turns; the last one is the assistant's.
        line: Where it stands in its file, counted from 1.
    """

    messages: tuple[Message, ...]
    line: int = 0

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Everything before the last answer."""
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        """The text of the last answer."""
        return self.messages[-1].content


class _BadLineError(Exception):
    """Why a line cannot be used; becomes part of an InvalidInputError."""


def read_chat_file(path: str | Path) -> list[Conversation]:
    """Read all conversations of a JSONL file.

    Args:
        path: A UTF-8 file, one JSON object per line; a byte order mark and blank lines do no harm.

    Returns:
        The conversations in the order of the file, at least one.

    Raises:
        InvalidInputError: The file cannot be read or is empty, or a line cannot be used; names file, line and
            field.
    """
    conversations: list[Conversation] = []
    problems: list[tuple[int, str]] = []
    for number, raw in _lines(path):
        try:
            conversations.append(Conversation(messages=_parse_line(raw), line=number))
        except _BadLineError as problem:
            problems.append((number, str(problem)))
    if problems:
        raise _bad_lines(path, problems)
    if not conversations:
        raise InvalidInputError(f"{path} is empty; each line must be {FORMATS}", field="file")
    return conversations


def _lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    try:
        with Path(path).open("rb") as file:
            for number, raw in enumerate(file, start=1):
                line = (raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw).strip()
                if line:
                    yield number, line
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror or error}", field="file") from error


def _bad_lines(path: str | Path, problems: list[tuple[int, str]]) -> InvalidInputError:
    line, what = problems[0]
    others = [str(number) for number, _ in problems[1:]]
    hidden = len(others) - _BAD_LINES_SHOWN
    more = ", ".join(others[:_BAD_LINES_SHOWN]) + (f" and {hidden} more" if hidden > 0 else "")
    also = f" (also unusable: line{'s' if len(others) > 1 else ''} {more})" if others else ""
    return InvalidInputError(f"{path}, line {line}: {what}{also}", field=f"line {line}")


def _parse_line(raw: bytes) -> tuple[Message, ...]:
    try:
        record = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _BadLineError(f"not UTF-8 (byte {error.start + 1}); save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise _BadLineError(_json_problem(raw, error)) from None
    except (RecursionError, ValueError) as error:
        raise _BadLineError(f"not usable JSON ({error}); each line must be {FORMATS}") from None
    if not isinstance(record, dict):
        raise _BadLineError(f"a JSON {_kind(record)}; each line must be an object, {FORMATS}")
    if "messages" in record and ("prompt" in record or "completion" in record):
        raise _BadLineError("both messages and prompt/completion; keep one of the two forms")
    if "messages" in record:
        return _from_messages(record["messages"])
    if "prompt" in record or "completion" in record:
        return _from_pair(record)
    raise _BadLineError(f"neither messages nor prompt and completion; each line must be {FORMATS}")


def _json_problem(raw: bytes, error: json.JSONDecodeError) -> str:
    if raw.startswith(b"["):
        return "starts a JSON array; write one object per line instead of a list of them"
    return f"not JSON: {error.msg} at column {error.colno}; each line must be one whole object, {FORMATS}"


def _kind(value: object) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")


def _from_pair(record: dict[str, Any]) -> tuple[Message, ...]:
    for field in ("prompt", "completion"):
        if field not in record:
            raise _BadLineError(f"{field} is missing; a pair needs both prompt and completion")
    return (
        Message("user", _text(record["prompt"], "prompt")),
        Message("assistant", _text(record["completion"], "completion")),
    )


def _from_messages(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise _BadLineError("messages must be a list of at least a user's and an assistant's message")
    messages = tuple(_message(item, f"messages[{index}]") for index, item in enumerate(value))
    first = next((message.role for message in messages if message.role != "system"), None)
    if first != "user":
        raise _BadLineError("messages must have a user's message before the first answer; add the prompt")
    if messages[-1].role != "assistant":
        raise _BadLineError(
            f"messages[{len(messages) - 1}].role is '{messages[-1].role}'; the last message must be the "
            "assistant's answer, which is what the model learns: add it, or drop what follows the last answer"
        )
    return messages


def _message(item: Any, field: str) -> Message:
    if not isinstance(item, dict):
        raise _BadLineError(f'{field} is a JSON {_kind(item)}; it must be {{"role": ..., "content": ...}}')
    for key in ("role", "content"):
        if key not in item:
            raise _BadLineError(f'{field}.{key} is missing; a message is {{"role": ..., "content": ...}}')
    if not isinstance(item["role"], str) or item["role"] not in ROLES:
        raise _BadLineError(f"{field}.role is {item['role']!r:.40}; it must be one of {', '.join(ROLES)}")
    content = _text(item["content"], f"{field}.content", required=item["role"] != "system")
    return Message(item["role"], content)


def _text(value: Any, field: str, *, required: bool = True) -> str:
    if not isinstance(value, str):
        raise _BadLineError(f"{field} is a JSON {_kind(value)}; it must be a text")
    if required and not value.strip():
        raise _BadLineError(f"{field} is empty; write a text or remove the line")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        # JSON may escape half of a surrogate pair, which no tokenizer can read.
        place = f"character {error.start + 1}"
        raise _BadLineError(f"{field} has half a surrogate pair at {place}; replace it") from None
    return value


@attrs.frozen(kw_only=True, slots=True)
class Example:
    """A training sequence.

    Attributes:
        tokens: Token ids of prompt and answers, as the model sees them.
        weights: For each token 1 if the model is to learn to say it, else 0; same length.
        line: Where the conversation stands in its file.
    """

    tokens: list[int]
    weights: list[float]
    line: int = 0

    @property
    def length(self) -> int:
        """How many tokens the model reads: all but the last, which is only predicted."""
        return len(self.tokens) - 1

    @property
    def weight(self) -> float:
        """The sum of the weights that count: all but the first, which nothing predicts."""
        return sum(self.weights[1:])

    def to_datum(self) -> Datum:
        """Return it shifted: at each position the target is the token that follows."""
        return Datum(
            model_input=ModelInput.from_ints(self.tokens[:-1]),
            loss_fn_inputs={"target_tokens": self.tokens[1:], "weights": self.weights[1:]},  # type: ignore[dict-item]
        )


class ChatRenderer:
    """Turns conversations into token ids with the chat template of a Hugging Face tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        """Use ``tokenizer``.

        Raises:
            InvalidInputError: It has no chat template.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise InvalidInputError(
                "the tokenizer of this model has no chat template; choose a model that was tuned to chat",
                field="model",
            )
        self._tokenizer = tokenizer
        self._special_ids = frozenset(tokenizer.all_special_ids)

    def render(self, conversation: Conversation) -> list[Example]:
        """Render a conversation for training.

        Prompts and answers are tokenized apart, so that the tokens before an answer are exactly those of
        :meth:`render_prompt`. All answers end up in one example if the template only ever appends; a template
        that rewrites earlier turns (some drop old reasoning) gives one example for each answer.

        Args:
            conversation: What to learn.

        Returns:
            At least one example. Weights are 1 on the answers and on the token that ends each, 0 elsewhere.

        Raises:
            InvalidInputError: The template cannot render it; names the line.
        """
        examples: list[Example] = []
        text = ""
        for index, message in enumerate(conversation.messages):
            if message.role != "assistant":
                continue
            prompt, answer = self._turn(conversation, index)
            if not examples or not prompt.startswith(text):
                examples.append(Example(tokens=[], weights=[], line=conversation.line))
                text = ""
            self._extend(examples[-1], prompt[len(text) :], answer)
            text = prompt + answer
        return examples

    def render_prompt(self, messages: Sequence[Message], line: int = 0) -> list[int]:
        """Return the token ids that ask for an answer to ``messages``.

        Raises:
            InvalidInputError: The template cannot render them.
        """
        return self._encode(self._apply(messages, line, generate=True))

    def answer_tokens(self, conversation: Conversation) -> list[int]:
        """Return the token ids of the last answer with the token that ends it."""
        tokens = self._encode(self._turn(conversation, len(conversation.messages) - 1)[1])
        return tokens[: self._learned(tokens)]

    @property
    def stop(self) -> list[int] | None:
        """Id of the token that ends an answer, or None to leave the end to the server."""
        question, answer = Message("user", "a"), Message("assistant", "b")
        last = self.answer_tokens(Conversation(messages=(question, answer)))[-1]
        return [last] if last in self._special_ids else None

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of generated tokens, without special tokens and blanks at the ends."""
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text.strip()

    def _apply(self, messages: Sequence[Message], line: int, *, generate: bool) -> str:
        plain = [{"role": message.role, "content": message.content} for message in messages]
        try:
            rendered = self._tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=generate)
        except ImportError:  # of the template engine; the message says what to install
            raise
        except Exception as error:  # templates are programs: jinja errors, KeyErrors, anything
            where = f"line {line}: " if line else ""
            raise InvalidInputError(
                f"{where}the chat template of this model refuses the messages: {error}", field="messages"
            ) from error
        return str(rendered)

    def _turn(self, conversation: Conversation, index: int) -> tuple[str, str]:
        """Return the text before the answer at ``index`` and the text of the answer."""
        prompt = self._apply(conversation.messages[:index], conversation.line, generate=True)
        whole = self._apply(conversation.messages[: index + 1], conversation.line, generate=False)
        if not whole.startswith(prompt):
            raise InvalidInputError(
                f"line {conversation.line}: the chat template of this model renders an answer differently "
                "from the beginning of one, so what is learned could not be asked for; choose another model",
                field="model",
            )
        return prompt, whole[len(prompt) :]

    def _extend(self, example: Example, prompt: str, answer: str) -> None:
        asked, said = self._encode(prompt), self._encode(answer)
        learned = self._learned(said)
        example.tokens.extend([*asked, *said])
        example.weights.extend([0.0] * len(asked) + [1.0] * learned + [0.0] * (len(said) - learned))

    def _encode(self, text: str) -> list[int]:
        # Not verbose: a text that is too long for the model is our caller's to report, with its line.
        return list(self._tokenizer.encode(text, add_special_tokens=False, verbose=False))

    def _learned(self, answer: list[int]) -> int:
        """Count the tokens up to the one that ends the turn; a template may write a line break after it."""
        ends = [position for position, token in enumerate(answer) if token in self._special_ids]
        if not ends or self._tokenizer.decode(answer[ends[-1] + 1 :]).strip():
            return len(answer)
        return ends[-1] + 1
