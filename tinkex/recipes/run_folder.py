"""The folder that a run leaves behind: what was asked, what happened, where the weights are.

``config.json``        the settings and the data, enough to resume
``metrics.jsonl``      one line for each step, and one for each time the held-out prompts were asked
``checkpoints.jsonl``  one line for each checkpoint, with its tinker:// paths
``answers.jsonl``      the held-out prompts with the answers before and after
``loss.png``           the loss curve, if matplotlib is installed

Lines are appended with one write each, so a reader sees whole lines; a line that a crash cut off is dropped
when the run is resumed.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinkex.errors import InvalidInputError

__all__ = ["RunFolder", "free_run_path"]

CONFIG = "config.json"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints.jsonl"
ANSWERS = "answers.jsonl"
LOSS = "loss.png"
_OURS = (CONFIG, METRICS, CHECKPOINTS, ANSWERS, LOSS)
Record = dict[str, Any]


def free_run_path(parent: Path, name: str) -> Path:
    """Return ``parent/name``, or with ``-2``, ``-3``, ... behind it the first that does not exist."""
    candidate, number = parent / name, 2
    while candidate.exists():
        candidate, number = parent / f"{name}-{number}", number + 1
    return candidate


class RunFolder:
    """A run folder, opened by :meth:`create` or :meth:`resume`."""

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        """Use a folder that exists; see :meth:`create` and :meth:`resume`."""
        self.path = path
        self.config = dict(config)

    @classmethod
    def create(cls, path: str | Path, config: Mapping[str, Any], *, force: bool = False) -> RunFolder:
        """Start a new run.

        Args:
            path: The folder; made if it is not there.
            config: What to write to ``config.json``.
            force: Replace the run that is in the folder; files that are not a run's stay.

        Returns:
            The folder.

        Raises:
            InvalidInputError: The folder has something in it, or cannot be made.
        """
        folder = Path(path)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()) and not force:
                raise InvalidInputError(
                    f"{folder} is not empty: resume the run in it (--resume), replace it (--force), or "
                    "choose another folder (--out)",
                    field="out",
                )
            for name in _OURS:
                (folder / name).unlink(missing_ok=True)
            run = cls(folder, config)
            run.write_config(config)
        except OSError as error:
            raise InvalidInputError(f"cannot write to {folder}: {_reason(error)}", field="out") from error
        return run

    @classmethod
    def resume(cls, path: str | Path) -> RunFolder:
        """Open a run that was begun.

        Raises:
            InvalidInputError: There is no run in the folder, or its ``config.json`` cannot be read.
        """
        folder = Path(path)
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidInputError(
                f"no run to resume in {folder} ({CONFIG}: {_reason(error)}); give the folder of a run",
                field="resume",
            ) from error
        for name in (METRICS, CHECKPOINTS, ANSWERS):
            _drop_torn_line(folder / name)
        return cls(folder, config)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Replace ``config.json``."""
        self.config = dict(config)
        _replace(self.path / CONFIG, json.dumps(self.config, indent=2, ensure_ascii=False) + "\n")

    def add_metrics(self, record: Mapping[str, Any]) -> None:
        """Append to ``metrics.jsonl``; ``record`` has a ``step``."""
        _append(self.path / METRICS, record)

    def add_checkpoint(self, record: Mapping[str, Any]) -> None:
        """Append to ``checkpoints.jsonl``; ``record`` has a ``step`` and paths."""
        _append(self.path / CHECKPOINTS, record)

    def write_answers(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Replace ``answers.jsonl``."""
        _replace(self.path / ANSWERS, "".join(_line(record) for record in records))

    def metrics(self) -> list[Record]:
        """Return all lines of ``metrics.jsonl``."""
        return _read(self.path / METRICS)

    def answers(self) -> list[Record]:
        """Return all lines of ``answers.jsonl``."""
        return _read(self.path / ANSWERS)

    def last_checkpoint(self) -> Record | None:
        """Return the newest line of ``checkpoints.jsonl``, or None."""
        checkpoints = _read(self.path / CHECKPOINTS)
        return checkpoints[-1] if checkpoints else None

    def rewind(self, step: int) -> None:
        """Forget the metrics of steps after ``step``; the run will do them again."""
        kept = [record for record in self.metrics() if record["step"] <= step]
        _replace(self.path / METRICS, "".join(_line(record) for record in kept))

    def plot_loss(self) -> Path | None:
        """Draw ``loss.png``.

        Returns:
            Its path, or None if matplotlib is not installed or there is no step yet.
        """
        records = [record for record in self.metrics() if "loss" in record]
        if not records:
            return None
        try:
            from matplotlib.figure import Figure
        except ImportError:
            return None
        figure = Figure(figsize=(7, 4), layout="constrained")
        _draw(figure.add_subplot(), records, str(self.config.get("settings", {}).get("base_model", "")))
        path = self.path / LOSS
        figure.savefig(path, dpi=120)
        return path


def _draw(axes: Any, records: Sequence[Record], title: str) -> None:
    steps = [record["step"] for record in records]
    losses = [record["loss"] for record in records]
    axes.plot(steps, losses, color="#9ab8d8", linewidth=1, label="each step")
    axes.plot(steps, _smooth(losses), color="#1f4e8c", linewidth=2, label="smoothed")
    axes.set(xlabel="step", ylabel="loss per token (nats)", title=title, ylim=(0, None))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)


def _smooth(values: Sequence[float]) -> list[float]:
    """Return the mean of each value and its neighbours, over a 25th of the curve."""
    reach = len(values) // 50
    windows = (values[max(0, at - reach) : at + reach + 1] for at in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else f"not JSON, {error}"


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _append(path: Path, record: Mapping[str, Any]) -> None:
    data = _line(record).encode("utf-8")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _read(path: Path) -> list[Record]:
    with contextlib.suppress(FileNotFoundError):
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return []


def _drop_torn_line(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:
            _replace(path, whole.decode("utf-8"))
