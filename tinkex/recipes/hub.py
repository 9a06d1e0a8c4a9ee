"""A checkpoint on the Hugging Face hub: the adapter as ``peft`` loads it, with a model card.

::

    rest = service.create_rest_client()
    pushed = push_checkpoint(rest, "tinker://<run>/sampler_weights/final", "me/my-adapter")
    print(pushed.url)

The package huggingface_hub sends it (``pip install "tinkex[hub]"``), with the login that it finds: ``HF_TOKEN``, or
that of ``hf auth login``.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from tinkex._version import __version__
from tinkex.errors import ConfigurationError, InvalidInputError, TinkexError
from tinkex.types.weights import require_run, run_of

if TYPE_CHECKING:
    from tinkex.clients import RestClient
    from tinkex.clients.download import Progress
    from tinkex.types import WeightsInfoResponse

__all__ = ["HubError", "PushedCheckpoint", "push_checkpoint", "write_model_card"]

BOOKKEEPING = ("checkpoint_complete", "optimizer*", "tinkex.json")
"""What a server keeps beside an adapter to go on training it: stays here unless ``allow_patterns`` names it."""
CONFIG, WEIGHTS, CARD = "adapter_config.json", "adapter_model.safetensors", "README.md"

_REPO = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
# Keys of Tinker, tokens of the hub, and JWTs.
_SECRET = re.compile(rb"\b(tml-[A-Za-z0-9_-]{20,}|hf_[A-Za-z0-9]{30,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.)")
_KEY_VARIABLE = "TINKER_API_KEY"
_SHORTEST_KEY = 12
_NEXT_STEP = {
    401: "log in with 'hf auth login', or set HF_TOKEN to a token that may write",
    403: "the token may not write there; choose another repository or a token that may write to it",
    404: "check the names of repository and revision, and that the token may see them",
    429: "wait a little and try again",
}
_TRY_AGAIN = "check the network and try again"


class HubError(TinkexError):
    """The Hugging Face hub refused, or could not be reached.

    Attributes:
        status_code: The HTTP status, None without an answer.
    """

    def __init__(self, message: str, *, status_code: int | None = None) -> None:
        """Keep the status."""
        super().__init__(message)
        self.status_code = status_code


@attrs.frozen(kw_only=True, slots=True)
class PushedCheckpoint:
    """What became of a checkpoint on the hub.

    Attributes:
        url: The page to look at: of the pull request if there is one, else of the repository.
        commit_url: The page of the commit.
    """

    url: str
    commit_url: str


def push_checkpoint(
    rest: RestClient,
    path: str,
    repo_id: str,
    *,
    private: bool = True,
    revision: str | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
    allow_patterns: Sequence[str] | None = None,
    ignore_patterns: Sequence[str] | None = None,
    model_card: bool = True,
    folder: str | Path | None = None,
    token: str | None = None,
    progress: Progress | None = None,
    api: Any = None,
) -> PushedCheckpoint:
    """Fetch a checkpoint and send it to a model repository on the Hugging Face hub; waits for both.

    Args:
        rest: Fetches the checkpoint.
        path: The checkpoint, as the server named it.
        repo_id: ``<user or organization>/<name>``; the repository is made if it is not there.
        private: Show it only to those with access. An existing repository keeps its own setting, so a public one is
            refused unless this is False.
        revision: Branch to send to, made if it is not there; the default branch unless given.
        commit_message: What to call the commit.
        create_pr: Open a pull request instead of changing the default branch.
        allow_patterns: Send only files that match one of these, such as ``*.safetensors``; unless given, all but what
            the server keeps beside an adapter (:data:`BOOKKEEPING`).
        ignore_patterns: Leave out files that match one of these.
        model_card: Write a model card, unless the checkpoint has one. In a card that the repository has, only the rows
            that an earlier push wrote are brought up to date.
        folder: Keep the files there, in a folder that is new or empty; a temporary one unless given.
        token: Token of the hub; that of its own login unless given.
        progress: Called with the bytes that were fetched, as by ``RestClient.download_checkpoint``.
        api: A ``huggingface_hub.HfApi`` to use, for another endpoint.

    Returns:
        Where it is.

    Raises:
        ConfigurationError: huggingface_hub is not installed.
        InvalidInputError: A name cannot be used, the checkpoint is no adapter, a file holds what looks like a key, or
            the repository is public and ``private`` is true.
        NotFoundError: There is no such checkpoint.
        HubError: The hub refused, or could not be reached.
    """
    require_run(path, field="path")
    if create_pr and revision is not None:
        raise InvalidInputError("a pull request is made to the default branch: leave out revision", field="revision")
    if not _REPO.fullmatch(repo_id):
        raise InvalidInputError(f"repo_id must be <user or organization>/<name>, got {repo_id!r:.200}", field="repo_id")
    hub = api or _make_api(token)
    info = rest.get_weights_info_by_tinker_path(path).result()
    with _hub_errors(repo_id):
        url = _prepare(hub, repo_id, private, revision)
        card = _read_card(hub, repo_id, revision) if model_card else None
    with _place(folder) as place:
        rest.download_checkpoint(path, place, progress=progress)
        _check_adapter(place, info)
        if model_card and not (place / CARD).exists():
            write_model_card(place, info, path, repo_id, card)
        _refuse_secrets(place)
        kept_here = BOOKKEEPING if allow_patterns is None else ()
        with _hub_errors(repo_id):
            commit = hub.upload_folder(
                repo_id=repo_id,
                folder_path=str(place),
                revision=revision,
                commit_message=commit_message or f"Upload {path}",
                create_pr=create_pr,
                allow_patterns=None if allow_patterns is None else list(allow_patterns),
                ignore_patterns=[*kept_here, *(ignore_patterns or ())],
            )
    return PushedCheckpoint(url=str(commit.pr_url or url), commit_url=str(commit.commit_url))


def write_model_card(
    folder: Path, info: WeightsInfoResponse, path: str, repo_id: str, card: str | None = None
) -> Path | None:
    """Write the ``README.md`` by which the hub knows an adapter.

    Its head names base model, library and tags, in the form of https://huggingface.co/docs/hub/model-cards. There is
    no license in it: nobody told us one.

    Args:
        folder: Holds the adapter.
        info: What the server says of the checkpoint.
        path: Path of the checkpoint.
        repo_id: Where the adapter will be loaded from.
        card: The card that is there, of which all but the rows of an earlier one stays as it is.

    Returns:
        The file; None if the card that is there stays as it is.
    """
    rank = _read_config(folder).get("r") or info.lora_rank
    rows = {
        "base model": f"`{info.base_model}`",
        "rank": str(rank or "unknown"),
        "training run": f"`{run_of(path) or 'unknown'}`",
        "checkpoint": f"`{path}`",
    }
    text = _new_card(info.base_model, repo_id, rows) if card is None else _with_rows(card, rows)
    if text == card:
        return None
    written = folder / CARD
    written.write_text(text, encoding="utf-8")
    return written


def _new_card(base: str, repo_id: str, rows: Mapping[str, str]) -> str:
    # A JSON text is also one of YAML and of Python, whatever the name has in it.
    base_text, repo_text = json.dumps(base), json.dumps(repo_id)
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""---
base_model: {base_text}
library_name: peft
pipeline_tag: text-generation
tags:
- {json.dumps(f"base_model:adapter:{base}")}
- lora
- tinker
- tinkex
---

# {repo_id.split("/")[1]}

A LoRA adapter of `{base}`, trained through the Tinker API.

| | |
|---|---|
{table}

## Load it

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained({base_text}, dtype="auto")
model = PeftModel.from_pretrained(model, {repo_text})
tokenizer = AutoTokenizer.from_pretrained({base_text})
```
"""


def _with_rows(card: str, rows: Mapping[str, str]) -> str:
    """Bring the rows of an earlier push up to date, if it is one of ours: if it names a checkpoint."""
    if not re.search(r"^\| checkpoint \| `[a-z]+://", card, re.M):
        return card
    return re.sub(
        r"^\| (rank|training run|checkpoint) \| .*$", lambda row: f"| {row[1]} | {rows[row[1]]} |", card, flags=re.M
    )


def _read_card(hub: Any, repo_id: str, branch: str | None) -> str | None:
    if not hub.file_exists(repo_id, CARD, revision=branch):
        return None
    return Path(hub.hf_hub_download(repo_id, CARD, revision=branch)).read_text(encoding="utf-8")


def _make_api(token: str | None) -> Any:
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise ConfigurationError(
            "sending to the Hugging Face hub needs the package huggingface_hub, which is not installed: "
            'pip install "tinkex[hub]"'
        ) from error
    return HfApi(token=token, library_name="tinkex", library_version=__version__)


def _prepare(hub: Any, repo_id: str, private: bool, branch: str | None) -> str:
    """Make the repository and the branch unless they are there, and return the address of the repository."""
    url = hub.create_repo(repo_id, private=private, exist_ok=True)
    if private and hub.model_info(repo_id).private is False:
        raise InvalidInputError(
            f"{repo_id} exists and is public, so everybody would get the weights; choose another repository, or say "
            "that they may be public (private=False, --public)",
            field="private",
        )
    if branch is not None:
        hub.create_branch(repo_id, branch=branch, exist_ok=True)
    return str(url)


@contextmanager
def _hub_errors(repo_id: str) -> Iterator[None]:
    """Give all errors of the hub's library, which have no common base, the form of ours."""
    try:
        yield
    except TinkexError:
        raise
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        said = getattr(error, "server_message", None) or next(iter(str(error).splitlines()), "") or type(error).__name__
        who = f"the Hugging Face hub answered {status}" if status else "sending to the Hugging Face hub failed"
        # What the library refuses by itself is a ValueError; all else without an answer is the connection.
        step = None if isinstance(error, ValueError) else _NEXT_STEP.get(status or 0, _TRY_AGAIN)
        raise HubError(f"{repo_id}: {who}: {said}" + (f"; {step}" if step else ""), status_code=status) from error


@contextmanager
def _place(folder: str | Path | None) -> Iterator[Path]:
    if folder is not None:
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory(prefix="tinkex-hub-") as parent:
        yield Path(parent) / "adapter"


def _read_config(folder: Path) -> dict[str, Any]:
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise ValueError("not an object")
    return config


def _check_adapter(folder: Path, info: WeightsInfoResponse) -> None:
    """Refuse what ``peft`` would not load, and name the base model where the server left it out."""
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        found = ", ".join(sorted(item.name for item in folder.iterdir())) or "nothing"
        raise InvalidInputError(
            f"this checkpoint is no adapter that peft loads: it has no {' and no '.join(missing)}, only {found}",
            field="path",
        )
    try:
        config = _read_config(folder)
    except ValueError as error:
        raise InvalidInputError(f"this checkpoint has a broken {CONFIG}: {error}", field="path") from error
    if not config.get("base_model_name_or_path"):
        _write_config(folder, {**config, "base_model_name_or_path": info.base_model})


def _write_config(folder: Path, config: Mapping[str, Any]) -> None:
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _refuse_secrets(folder: Path) -> None:
    """Refuse to send a file in which somebody left a key; weights are too large to hide one by accident."""
    key = os.environ.get(_KEY_VARIABLE, "").encode()
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix == ".safetensors":
            continue
        content = path.read_bytes()
        if _SECRET.search(content) or (len(key) >= _SHORTEST_KEY and key in content):
            raise InvalidInputError(
                f"{path.relative_to(folder)} of this checkpoint holds what looks like a key, so nothing was sent; "
                "fetch it with download_checkpoint, take the key out and upload the folder yourself",
                field="path",
            )
