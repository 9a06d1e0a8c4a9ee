"""The language model in the package: its files agree, and its text lacks what the examples teach."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import sys
from itertools import islice, pairwise
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinkex

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

transformers = pytest.importorskip("transformers")

FOLDER = Path(tinkex.__file__).parent / "data" / "tiny"
REPOSITORY = Path(__file__).parents[2]
SPECIALS = {
    "<|bos|>": 256,
    "<|end|>": 257,
    "<|user|>": 258,
    "<|assistant|>": 259,
    "<|system|>": 260,
    "<|pad|>": 261,
}
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "say: cat"},
    {"role": "assistant", "content": "cat"},
    {"role": "user", "content": "shout: cat"},
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer as any user of transformers gets it."""
    loaded: PreTrainedTokenizerFast = transformers.AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)
    return loaded


def contents(name: str) -> dict[str, object]:
    """One JSON file of the model."""
    loaded: dict[str, object] = json.loads((FOLDER / name).read_text())
    return loaded


@given(text=st.text().filter(lambda text: not any(special in text for special in SPECIALS)))
def test_token_ids_are_the_utf8_bytes_and_decode_to_the_same_text(
    tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    """Any text becomes exactly its UTF-8 bytes, with no special token added, and comes back unchanged."""
    ids = tokenizer(text)["input_ids"]
    assert ids == list(text.encode())
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("text", [" two  spaces , and a stop .", "do n't", "\r\n\t\x00", "e\u0301 \u00e9 \U0001f600"])
def test_awkward_text_is_not_cleaned_up(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    """Spaces before punctuation, control characters and combining marks survive the round trip."""
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_have_the_ids_behind_the_bytes(tokenizer: PreTrainedTokenizerFast) -> None:
    """Each special token is one id, 256 to 261, and disappears where special tokens are skipped."""
    assert {text: tokenizer.encode(text) for text in SPECIALS} == {text: [token] for text, token in SPECIALS.items()}
    assert tokenizer.decode([*SPECIALS.values(), 97], skip_special_tokens=True) == "a"


def test_configuration_and_tokenizer_agree_on_special_ids(tokenizer: PreTrainedTokenizerFast) -> None:
    """Begin, end and padding are the same tokens for the model, for generation and for the tokenizer."""
    expected = {"bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 261}
    assert {name: getattr(tokenizer, name) for name in expected} == expected
    assert contents("generation_config.json") == expected
    config = contents("config.json")
    assert {name: config[name] for name in expected} == expected
    assert config["max_position_embeddings"] == tokenizer.model_max_length == 1024


def test_the_chat_template_renders_the_documented_format(tokenizer: PreTrainedTokenizerFast) -> None:
    """The system message follows <|bos|>, each message ends in <|end|>, <|assistant|> opens an answer."""
    text = tokenizer.apply_chat_template(TALK, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|bos|><|system|>Be brief.<|end|><|user|>say: cat<|end|><|assistant|>cat<|end|>"
        "<|user|>shout: cat<|end|><|assistant|>"
    )
    assert tokenizer.apply_chat_template(TALK[:1], tokenize=False) == "<|bos|><|system|>Be brief.<|end|>"


def test_the_card_names_the_hash_of_the_packed_weights() -> None:
    """Whoever checks the weights against the card finds them to be the ones it describes."""
    named = re.search(r"sha256 `([0-9a-f]{64})`", (FOLDER / "MODEL_CARD.md").read_text())
    assert named
    assert named[1] == hashlib.sha256((FOLDER / "model.safetensors").read_bytes()).hexdigest()


def test_the_model_adds_little_to_the_package() -> None:
    """All files of the model together stay under 2.5 MB."""
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 2_500_000


@pytest.fixture
def pig(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script tools/make_pig_latin.py as a module."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "tools"))
    return importlib.import_module("make_pig_latin")


def test_the_pig_latin_file_is_what_its_script_writes(
    pig: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running the script again gives the same lines, so the data can be trusted to follow the rule."""
    monkeypatch.setattr(sys, "argv", ["make_pig_latin.py", "--out", str(tmp_path / "again.jsonl")])
    pig.main()
    again = (tmp_path / "again.jsonl").read_text()
    assert again == (REPOSITORY / "docs" / "examples" / "pig_latin.jsonl").read_text()
    assert {"prompt": "pig latin: chair", "completion": "airchay"} in map(json.loads, again.splitlines())
    assert {"prompt": "pig latin: apple", "completion": "appleway"} in map(json.loads, again.splitlines())


def test_the_text_for_pretraining_holds_no_pig_latin(pig: ModuleType) -> None:
    """No answer in it is the pig latin of a word of its prompt: fine-tuning, not memory, teaches the game."""
    for document in islice(pig.corpus.documents(seed=1), 3000):
        chat = [] if isinstance(document, str) else document
        for (_, prompt), (_, answer) in pairwise(chat):
            words = filter(pig.suitable, re.findall("[a-z]+", prompt))
            assert answer not in {pig.pig_latin(word) for word in words}
        assert "pig latin" not in str(document).lower()
