"""Tokenizers: which one belongs to a model, and that code of others runs only if the program says so."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import pytest

import tinkex
from tests.clients.conftest import BASE
from tinkex.clients import tokenizers
from tinkex.clients.tokenizers import load_tokenizer
from tinkex.data import TINY_PATH

KIMI = ("moonshotai/Kimi-K2-Thinking", "moonshotai/Kimi-K2.5", "moonshotai/Kimi-K2.6", "moonshotai/Kimi-K3")


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No loader is registered and nothing is loaded."""
    monkeypatch.setattr(tokenizers, "_loaders", {})
    tokenizers._load.cache_clear()
    yield
    tokenizers._load.cache_clear()


class Hub:
    """Stands for ``transformers.AutoTokenizer``: keeps what it was asked, and fails as it is told."""

    def __init__(self):
        self.asked = []
        self.error = None

    def from_pretrained(self, name, **options):
        """Return something new."""
        self.asked.append((name, options))
        if self.error is not None:
            raise self.error
        return object()


@pytest.fixture
def hub(monkeypatch):
    """What this process imports as transformers, and as tml_tokenizers."""
    hub, modules = Hub(), [ModuleType("transformers"), ModuleType("tml_tokenizers")]
    modules.append(ModuleType("tml_tokenizers.tinker_tokenizers"))
    modules[0].AutoTokenizer = hub
    modules[1].tinker_tokenizers = modules[2]
    modules[2].get_tinker_tokenizer = lambda name: ("theirs", name)
    for module in modules:
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return hub


def paste(message):
    """Run the call that an error names, as a user would who trusts the code."""
    call = message.split("call ")[1].split("; elsewhere")[0]
    exec(call, {name: sys.modules[name] for name in ("tinkex", "transformers", "tml_tokenizers")})


@pytest.mark.parametrize(
    ("base_model", "tokenizer_id", "name"),
    [
        ("Qwen/Qwen3-8B", None, "Qwen/Qwen3-8B"),
        ("Qwen/Qwen3-8B/long:a:1", None, "Qwen/Qwen3-8B"),
        ("Qwen/Qwen3-8B", "other/place:long", "other/place"),
        ("Qwen/Qwen3-8B", "C:folder", "C:folder"),
        ("meta-llama/Llama-3.1-8B", None, "thinkingmachineslabinc/meta-llama-3-instruct-tokenizer"),
        ("meta-llama/Llama-3.1-8B", "own/llama", "own/llama"),
        ("tinkex/tiny", "ignored/name", str(TINY_PATH)),
    ],
)
def test_the_tokenizer_of_a_model_is_where_the_server_or_its_name_says(hub, base_model, tokenizer_id, name):
    """And it is asked for with the word that keeps transformers from running code, or from asking at the terminal."""
    load_tokenizer(base_model, tokenizer_id)
    assert [(name, {"trust_remote_code": False})] == hub.asked


def test_both_clients_load_with_the_loader_of_the_program(stage):
    """Once for the name that both have."""
    asked = []

    def load(name):
        asked.append(name)
        return object()

    tinkex.register_tokenizer("acme/", load)
    mine = stage.train().get_tokenizer()
    assert mine is stage.service.create_sampling_client(base_model=BASE).get_tokenizer()
    assert [BASE] == asked


def test_the_longest_prefix_counts_and_of_one_prefix_the_last_loader(hub):
    """What an earlier loader has loaded does not stay for those who replaced it."""
    for prefix, answer in (("a/", "owner"), ("a/b", "first"), ("a/bc/d", "never")):
        tinkex.register_tokenizer(prefix, lambda name, answer=answer: answer)
    assert ["owner", "first", "first"] == [load_tokenizer(name) for name in ("a/x", "a/b", "a/bc")]
    tinkex.register_tokenizer("a/b", lambda name: "second")
    assert ["owner", "second", "second"] == [load_tokenizer(name) for name in ("a/x", "a/b", "a/bc")]
    assert not hub.asked


def test_a_server_cannot_choose_what_a_loader_loads(hub):
    """It is asked for names of its prefix only, also if the server says that the tokenizer is elsewhere."""
    tinkex.register_tokenizer("moonshotai/", lambda name: pytest.fail(f"asked for {name}"))
    load_tokenizer("moonshotai/Kimi-K3", "evil/repository")
    assert [("evil/repository", {"trust_remote_code": False})] == hub.asked


def test_a_tokenizer_is_loaded_once_and_a_failure_is_not_kept(hub):
    """The second attempt may go well."""
    hub.error = OSError("no network\nand more")
    with pytest.raises(tinkex.ConfigurationError, match=r"no tokenizer at 'a/b' \(no network\); .*register_tokenizer"):
        load_tokenizer("a/b")
    hub.error = None
    assert load_tokenizer("a/b") is load_tokenizer("a/b")
    assert 2 == len(hub.asked)


@pytest.mark.parametrize("name", KIMI)
def test_the_code_of_a_tokenizer_runs_when_the_program_says_so(hub, name):
    """The error names the call, with the commit to trust; nothing is fetched before."""
    with pytest.raises(tinkex.ConfigurationError, match="not run unasked") as refusal:
        load_tokenizer(f"{name}:long")
    assert not hub.asked
    paste(str(refusal.value))
    load_tokenizer(f"{name}:long")
    ((asked, options),) = hub.asked
    assert (name, True, 40) == (asked, options["trust_remote_code"], len(options["revision"]))


def test_a_variant_has_the_tokenizer_of_its_model(hub):
    """Text only changes the model, not its tokens."""
    tinkex.register_tokenizer("moonshotai/Kimi-K2.5", lambda name: name)
    assert "moonshotai/Kimi-K2.5" == load_tokenizer("moonshotai/Kimi-K2.5-Text-Only")


@pytest.mark.parametrize("name", ["TML/small", "thinkingmachines/small"])
def test_a_tokenizer_in_a_package_comes_from_there_when_the_program_says_so(hub, name):
    """The package is not imported before, and transformers is not asked for what it cannot know."""
    with pytest.raises(tinkex.ConfigurationError, match="package tml_tokenizers of Thinking Machines") as refusal:
        load_tokenizer("thinkingmachines/base", name)
    paste(str(refusal.value))
    assert ("theirs", name) == load_tokenizer("thinkingmachines/base", name)
    assert not hub.asked


def test_other_code_is_found_out_by_transformers(hub):
    """Its error becomes the same call, without a commit, which nobody here knows."""
    hub.error = ValueError("it has custom code.\nPlease pass the argument `trust_remote_code=True` to run it.")
    with pytest.raises(tinkex.ConfigurationError, match="'a/b' is code of its own") as refusal:
        load_tokenizer("a/b")
    hub.error = None
    paste(str(refusal.value))
    load_tokenizer("a/b")
    assert ("a/b", {"trust_remote_code": True}) == hub.asked[-1]


@pytest.mark.engine
def test_the_code_in_a_folder_is_not_touched_before(tmp_path, monkeypatch):
    """With transformers itself: the file leaves a mark when it runs."""
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder, mark = tmp_path / "own", tmp_path / "ran"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    about = {"tokenizer_class": "Odd", "auto_map": {"AutoTokenizer": ["odd.Odd", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    (folder / "odd.py").write_text(
        f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n"
        "class Odd:\n"
        "    register_for_auto_class = classmethod(lambda cls: None)\n"
        "    from_pretrained = classmethod(lambda cls, name, **options: cls())\n"
    )
    with pytest.raises(tinkex.ConfigurationError, match="not run unasked") as refusal:
        load_tokenizer("acme/odd", str(folder))
    assert not mark.exists()
    monkeypatch.setitem(sys.modules, "tml_tokenizers", None)
    paste(str(refusal.value))
    assert "Odd" == type(load_tokenizer("acme/odd", str(folder))).__name__
    assert mark.exists()


def test_a_missing_transformers_is_named(monkeypatch):
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(tinkex.ConfigurationError, match="pip install transformers"):
        load_tokenizer("a/b")


def test_a_loader_that_is_none_is_refused(hub):
    """So are a prefix that is no text, or would fit everything, and a loader that returns nothing."""
    for prefix, loader, message in (
        ("a/", "b", "loader must be a function"),
        (5, print, "prefix"),
        ("", print, "prefix"),
    ):
        with pytest.raises(tinkex.InvalidInputError, match=message):
            tinkex.register_tokenizer(prefix, loader)
    tinkex.register_tokenizer("a/", lambda name: None)
    with pytest.raises(tinkex.ConfigurationError, match="'a/b' returned None"):
        load_tokenizer("a/b")
