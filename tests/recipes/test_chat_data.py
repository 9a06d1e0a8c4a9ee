"""Reading chat files and rendering them for training."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.recipes.fakes import ASSISTANT, END, FakeTokenizer
from tinkex.errors import InvalidInputError
from tinkex.recipes.chat_data import ChatRenderer, Conversation, Message, read_chat_file

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="<>"), min_size=1, max_size=8).filter(str.strip)
TURNS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4)


def conversation(turns, system=None):
    """Build a conversation of pairs of question and answer."""
    messages = [Message("system", system)] if system else []
    for question, answer in turns:
        messages += [Message("user", question), Message("assistant", answer)]
    return Conversation(messages=tuple(messages), line=1)


def write(path, *lines):
    """Write lines, which are bytes or anything JSON can hold."""
    data = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"\n".join(data) + b"\n")
    return path


PAIR = {"prompt": "a", "completion": "b"}
CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


def test_both_forms_may_be_mixed_and_mean_the_same(tmp_path):
    """A prompt with its completion is a user's message with its answer; line numbers are those of the file."""
    file = write(tmp_path / "data.jsonl", PAIR, b"", CHAT | {"id": 7})
    first, second = read_chat_file(file)
    assert first.messages == second.messages == (Message("user", "a"), Message("assistant", "b"))
    assert (first.line, second.line) == (1, 3)


def test_byte_order_mark_windows_line_ends_and_long_unicode_lines_do_no_harm(tmp_path):
    """Files from other systems are read as they are meant."""
    text = "ein Bär \u2028 🐻 " * 50_000
    line = json.dumps({"prompt": text, "completion": "ü"}, ensure_ascii=False).encode()
    file = write(tmp_path / "data.jsonl", b"\xef\xbb\xbf" + line + b"\r", b"\r", json.dumps(PAIR).encode())
    conversations = read_chat_file(file)
    assert [item.answer for item in conversations] == ["ü", "b"]
    assert conversations[0].prompt[0].content == text


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "not JSON"),
        (b'[{"prompt": "a"}]', "a JSON array"),
        (b"[", "one object per line"),
        (b'"text"', "a JSON string"),
        (b"null", "a JSON null"),
        (b"\xff\xfe{", "not UTF-8"),
        (b"[" * 100_000, "one object per line|not usable JSON"),
        ({}, "neither messages nor prompt"),
        ({"prompt": "a"}, "completion is missing"),
        ({"completion": "a"}, "prompt is missing"),
        ({"prompt": "a", "completion": ""}, "completion is empty"),
        ({"prompt": "a", "completion": 3}, "completion is a JSON number"),
        ({"prompt": "a", "completion": "b\ud800"}, "half a surrogate pair at character 2"),
        ({**PAIR, **CHAT}, "keep one of the two"),
        ({"messages": []}, "messages must be a list"),
        ({"messages": {}}, "messages must be a list"),
        ({"messages": ["a"]}, r"messages\[0\] is a JSON string"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\]\.content is missing"),
        ({"messages": [{"content": "a"}]}, r"messages\[0\]\.role is missing"),
        ({"messages": [{"role": "bot", "content": "a"}]}, r"messages\[0\]\.role is 'bot'.*one of system, user"),
        ({"messages": [{"role": ["user"], "content": "a"}]}, r"messages\[0\]\.role is \['user'\]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, r"content is a JSON array"),
        ({"messages": [{"role": "user", "content": None}]}, r"content is a JSON null"),
        ({"messages": CHAT["messages"][:1]}, r"messages\[0\]\.role is 'user'; the last message must be"),
        ({"messages": CHAT["messages"][1:]}, "a user's message before the first answer"),
    ],
)
def test_a_bad_line_is_named_with_file_line_field_and_way_out(tmp_path, line, says):
    """Whoever gets the message can open the file at that line and mend it."""
    file = write(tmp_path / "data.jsonl", PAIR, line)
    with pytest.raises(InvalidInputError, match=rf"data\.jsonl, line 2: .*({says})"):
        read_chat_file(file)


def test_all_bad_lines_are_named_but_not_endlessly(tmp_path):
    """One look at the message shows how much is wrong."""
    file = write(tmp_path / "data.jsonl", *[PAIR, {}] * 10)
    with pytest.raises(InvalidInputError, match=r"line 2: .*\(also unusable: lines 4, 6, 8, 10, 12 and 4 more\)"):
        read_chat_file(file)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(tmp_path, content):
    """There is nothing to learn in it, and the message shows what a line looks like."""
    (tmp_path / "data.jsonl").write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"is empty; each line must be"):
        read_chat_file(tmp_path / "data.jsonl")


def test_a_missing_file_is_an_error_of_ours(tmp_path):
    """The error is one line at the terminal, like all others."""
    with pytest.raises(InvalidInputError, match=r"cannot read .*No such file"):
        read_chat_file(tmp_path / "none.jsonl")


@given(turns=TURNS, system=st.none() | TEXTS, after_end=st.sampled_from(["", "\n"]))
def test_exactly_the_answers_and_their_ends_are_learned(turns, system, after_end):
    """Weights are 1 on each answer with its end token and 0 on everything else, line breaks of the template too."""
    tokenizer = FakeTokenizer(after_end)
    (example,) = ChatRenderer(tokenizer).render(conversation(turns, system))
    learned = [token for token, weight in zip(example.tokens, example.weights, strict=True) if weight]
    assert tokenizer.decode(learned) == "".join(f"{answer}<end>" for _, answer in turns)
    assert set(example.weights) == {0.0, 1.0}


@given(turns=TURNS, system=st.none() | TEXTS)
def test_what_is_learned_is_what_will_be_asked(turns, system):
    """The tokens before the last answer are exactly those of the prompt that asks for it."""
    renderer = ChatRenderer(FakeTokenizer())
    item = conversation(turns, system)
    (example,) = renderer.render(item)
    prompt, answer = renderer.render_prompt(item.prompt), renderer.answer_tokens(item)
    assert example.tokens == prompt + answer
    assert prompt[-1] == ASSISTANT
    assert answer[-1] == END


def test_the_datum_is_shifted_by_one():
    """At each position the target is the next token, and its weight says whether it is learned."""
    (example,) = ChatRenderer(FakeTokenizer()).render(conversation([("q", "a")]))
    datum = example.to_datum()
    assert datum.model_input.to_ints() == example.tokens[:-1]
    assert datum.loss_fn_inputs["target_tokens"].tolist() == example.tokens[1:]
    assert datum.loss_fn_inputs["weights"].tolist() == example.weights[1:]
    assert example.length == datum.model_input.length
    assert example.weight == 2


def test_a_template_that_rewrites_earlier_turns_gives_an_example_for_each_answer():
    """Each answer is learned behind exactly the text that it will follow."""

    class Forgetful(FakeTokenizer):
        def apply_chat_template(self, messages, tokenize, add_generation_prompt):
            last = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=0)
            kept = [{**m, "content": "x"} if i < last else m for i, m in enumerate(messages)]
            return super().apply_chat_template(kept, tokenize, add_generation_prompt)

    tokenizer = Forgetful()
    examples = ChatRenderer(tokenizer).render(conversation([("a", "b"), ("c", "d")]))
    assert [tokenizer.decode(example.tokens) for example in examples] == [
        "<user>a<end><assistant>b<end>",
        "<user>x<end><assistant>x<end><user>c<end><assistant>d<end>",
    ]


def test_a_template_that_cannot_be_asked_for_its_answers_is_refused():
    """Training on something that no prompt leads to would be wasted."""

    class Thinking(FakeTokenizer):
        def apply_chat_template(self, messages, tokenize, add_generation_prompt):
            return super().apply_chat_template(messages, tokenize, add_generation_prompt) + "!" * add_generation_prompt

    with pytest.raises(InvalidInputError, match="line 1: the chat template"):
        ChatRenderer(Thinking()).render(conversation([("a", "b")]))


def test_a_template_that_refuses_the_messages_names_the_line():
    """Templates are programs of others; what they raise arrives as an error of ours."""

    class Picky(FakeTokenizer):
        def apply_chat_template(self, messages, tokenize, add_generation_prompt):
            raise KeyError("no system role")

    with pytest.raises(InvalidInputError, match=r"line 1: .*refuses the messages: .*no system role"):
        ChatRenderer(Picky()).render(conversation([("a", "b")]))


def test_a_tokenizer_without_chat_template_is_refused():
    """A model that cannot chat is not trained on chats."""
    tokenizer = FakeTokenizer()
    tokenizer.chat_template = None
    with pytest.raises(InvalidInputError, match="no chat template"):
        ChatRenderer(tokenizer)


def test_generation_stops_at_the_token_that_ends_a_turn():
    """The stop is what training put behind each answer; without an end token the server decides."""
    assert ChatRenderer(FakeTokenizer("\n")).stop == [END]
    plain = FakeTokenizer()
    plain.all_special_ids = ()
    assert ChatRenderer(plain).stop is None
