"""What the three trainers share: the built-in model's tokenizer, and toy data. Uses the official SDK's names only."""

from __future__ import annotations

import atexit
import functools
import json
import sys
from pathlib import Path

from tinker_cookbook.supervised.types import ChatDatasetBuilderCommonConfig
from tinker_cookbook.tokenizer_utils import register_tokenizer

from tinkex.clients.tokenizers import load_tokenizer

MODEL = "tinkex/tiny"
RENDERER = "role_colon"
WORDS = ["cat", "dog", "sun", "map", "pen", "cup", "hat", "box", "fig", "jar", "net", "rug"]

register_tokenizer(MODEL, functools.partial(load_tokenizer, MODEL))


def common(batch_size: int) -> ChatDatasetBuilderCommonConfig:
    """Return how conversations become tokens."""
    return ChatDatasetBuilderCommonConfig(
        model_name_for_tokenizer=MODEL, renderer_name=RENDERER, max_length=128, batch_size=batch_size
    )


def conversation(word: str, answer: str) -> list[dict[str, str]]:
    """Return one question and its answer."""
    return [{"role": "user", "content": f"say {word}"}, {"role": "assistant", "content": answer}]


def write_rows(path: Path, rows: list[dict]) -> str:
    """Write rows as JSON lines; return where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def _note_modules(log_path: str) -> None:
    """Leave word of what was imported under the official SDK's name."""
    import tinker

    import tinkex

    found = [name for name in sys.modules if name.partition(".")[0] == "tinker"]
    files = {name: getattr(sys.modules[name], "__file__", None) for name in found}
    official = [name for name, file in files.items() if file and "tinkex" not in Path(file).parts]
    report = {"official": official, "is_ours": tinker.ServiceClient is tinkex.ServiceClient}
    Path(log_path).with_suffix(".modules").write_text(json.dumps(report))


atexit.register(_note_modules, sys.argv[1])
