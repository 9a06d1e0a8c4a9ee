"""What the tutorials would fetch from the Hugging Face hub, made of the built-in model: models, tokenizers, rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from tinkex.data import builtin_models

MODELS = ("Qwen/Qwen3.5-4B", "Qwen/Qwen3.5-9B-Base", "Qwen/Qwen3.6-35B-A3B", "moonshotai/Kimi-K2.6")
"""The base models that tutorials 101 to 204 name."""

ROWS = 160
"""As many as tutorial 104 takes of GSM8K."""

_CONTEXT = 4096  # a token is a byte here, so a prompt of theirs is longer than the 1,024 tokens of the built-in model

_CHAT_TOKENS = (
    *("<|im_start|>", "<|im_end|>", "<think>", "</think>"),
    *("<|im_user|>", "<|im_assistant|>", "<|im_system|>", "<|im_middle|>"),
)
"""Those of the models above; they take rows of the embedding that are free."""

_COMMIT = "b5aabbfb20227ed42becbf5541dbffd213942c58"  # the one of Kimi K2.6 that the cookbook asks for

_KIMI = "from transformers import PreTrainedTokenizerFast as TikTokenTokenizer\n"
"""The cookbook runs the tokenizer of Kimi models as code from the hub."""


def make_model(folder: Path) -> Path:
    """Write the first layer of the built-in model, with more context and the chat tokens of others; return where."""
    from safetensors.numpy import load_file, save_file

    (source,) = builtin_models().values()
    shutil.copytree(source, folder)
    weights = folder / "model.safetensors"
    kept = {name: array for name, array in load_file(weights).items() if _is_kept(name)}
    save_file(kept, weights, metadata={"format": "pt"})
    _change(folder / "config.json", _shorten)
    _change(folder / "tokenizer.json", _add_tokens)
    _change(folder / "tokenizer_config.json", lambda config: config.update(model_max_length=_CONTEXT))
    return folder


def _is_kept(name: str) -> bool:
    return ".layers." not in name or ".layers.0." in name


def _change(path: Path, edit: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def _shorten(config: dict) -> None:
    config.update(num_hidden_layers=1, layer_types=config["layer_types"][:1], max_position_embeddings=_CONTEXT)


def _add_tokens(tokenizer: dict) -> None:
    last = tokenizer["added_tokens"][-1]
    added = [{**last, "id": last["id"] + 1 + index, "content": text} for index, text in enumerate(_CHAT_TOKENS)]
    tokenizer["added_tokens"] += added


def make_hub_cache(folder: Path, model: Path) -> Path:
    """Lay a model out as a cache of the hub that has downloaded it under each name; return where."""
    for name in MODELS:
        repository = folder / "hub" / f"models--{name.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(_COMMIT)
        snapshot = shutil.copytree(model, repository / "snapshots" / _COMMIT)
        (snapshot / "tokenization_kimi.py").write_text(_KIMI)
    return folder


def make_gsm8k(folder: Path) -> None:
    """Write sums as a data set that ``load_dataset("openai/gsm8k", "main")`` finds below the current folder."""
    path = folder / "openai" / "gsm8k"
    path.mkdir(parents=True)
    sums = [{"question": f"What is {n} + {n}?", "answer": f"{n} + {n} = {2 * n}\n#### {2 * n}"} for n in range(ROWS)]
    (path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sums))
    (path / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: train\n    path: train.jsonl\n---\n"
    )
