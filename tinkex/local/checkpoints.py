"""Checkpoints on disk: atomic folders that survive the process and may be shared by several.

``<root>/checkpoints/<run>/<kind>/<name>/`` holds the engine's files and ``checkpoint.json``. A checkpoint is written in
a scratch folder, flushed, and renamed into place, so that a folder that is there is complete. (One that is overwritten
is missing between two renames.) Nothing is cached: what another process saves or deletes is seen at once.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import attrs

from tinkex.errors import InvalidInputError, TinkexError
from tinkex.local.scratch import Scratch
from tinkex.types import Checkpoint, CheckpointType, ParsedCheckpointTinkerPath, WeightsInfoResponse
from tinkex.wire import json

__all__ = ["KINDS", "CheckpointStore", "SavedCheckpoint", "utc_now"]

KINDS: dict[str, CheckpointType] = {
    "weights": "training",
    "sampler_weights": "sampler",
    "external_weights": "external",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_RUN = re.compile(r"[A-Za-z0-9-]{1,64}:train:[0-9]{1,12}")
_RECORD = "checkpoint.json"


def utc_now() -> datetime:
    """Return the time of day; used for dates only, never to measure."""
    return datetime.now(timezone.utc)


@attrs.frozen(kw_only=True, slots=True)
class SavedCheckpoint:
    """What ``checkpoint.json`` says of a checkpoint; ``info`` is what a model needs to load it."""

    training_run_id: str
    kind: str
    name: str
    time: datetime
    size_bytes: int
    info: WeightsInfoResponse
    public: bool = False
    expires_at: datetime | None = None
    user_metadata: dict[str, str] | None = None
    run_metadata: dict[str, Any] | None = None

    @property
    def tinker_path(self) -> str:
        """Its name in the API."""
        return f"tinker://{self.training_run_id}/{self.kind}/{self.name}"

    def listed(self) -> Checkpoint:
        """Return it as the API lists it."""
        return Checkpoint(
            checkpoint_id=f"{self.kind}/{self.name}",
            checkpoint_type=KINDS[self.kind],
            time=self.time,
            tinker_path=self.tinker_path,
            size_bytes=self.size_bytes,
            public=self.public,
            expires_at=self.expires_at,
            user_metadata=self.user_metadata,
        )


def check_name(name: str) -> None:
    """Refuse a name that cannot be a folder's.

    Raises:
        InvalidInputError: It is not 1 to 128 letters, digits, ``.``, ``_`` and ``-``, beginning with a letter or digit.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInputError(
            f"checkpoint name {name!r:.160} is not allowed; use 1 to 128 letters, digits, '.', '_' and '-', "
            "beginning with a letter or a digit",
            field="path",
        )


class CheckpointStore:
    """All checkpoints below one folder."""

    def __init__(
        self, root: Path, scratch: Scratch, *, quota_bytes: int, now: Callable[[], datetime] = utc_now
    ) -> None:
        """Use ``root/checkpoints``, which is made at the first save."""
        self.root = root
        self._base = root / "checkpoints"
        self._scratch = scratch
        self._quota_bytes = quota_bytes
        self._now = now

    def save(
        self,
        *,
        run: str,
        kind: str,
        name: str,
        write: Callable[[Path], None],
        describe: Callable[[Path], WeightsInfoResponse],
        overwrite: bool = False,
        ttl_seconds: int | None = None,
        user_metadata: dict[str, str] | None = None,
        run_metadata: dict[str, Any] | None = None,
    ) -> SavedCheckpoint:
        """Save a checkpoint.

        Args:
            run: Id of the model.
            kind: ``weights``, ``sampler_weights`` or ``external_weights``.
            name: Its name.
            write: Writes the files into an empty folder.
            describe: Tells from the files what a model needs to load them.
            overwrite: Replace a checkpoint of the same name.
            ttl_seconds: Delete it after this time.
            user_metadata: Kept with it.
            run_metadata: What the model was created with.

        Raises:
            InvalidInputError: The name is not allowed or taken, or there is no room left.
        """
        check_name(name)
        target = self._folder(run, kind, name)
        if not overwrite and self.find(run, kind, name) is not None:
            raise InvalidInputError(
                f"tinker://{run}/{kind}/{name} exists; choose another name, delete it or pass overwrite=True",
                field="path",
            )
        self._check_room()
        folder = self._scratch.new_folder("save")
        try:
            write(folder)
            now = self._now()
            record = SavedCheckpoint(
                training_run_id=run,
                kind=kind,
                name=name,
                time=now,
                size_bytes=sum(path.stat().st_size for path in folder.iterdir()),
                info=describe(folder),
                expires_at=None if ttl_seconds is None else now + timedelta(seconds=ttl_seconds),
                user_metadata=user_metadata,
                run_metadata=run_metadata,
            )
            (folder / _RECORD).write_bytes(json.encode(record))
            self._move_in(folder, target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return record

    def copy(self, source: SavedCheckpoint, run: str, ttl_seconds: int | None) -> SavedCheckpoint:
        """Copy a checkpoint to another run, under the same name; the files are shared where that is possible.

        Raises:
            InvalidInputError: That run has it already.
            FileNotFoundError: The checkpoint was deleted meanwhile.
        """
        self._check_room()
        if self.find(run, source.kind, source.name) is not None:
            raise InvalidInputError(f"tinker://{run}/{source.kind}/{source.name} exists already", field="source_path")
        folder = self.snapshot(source)
        copy = attrs.evolve(
            source, training_run_id=run, time=self._now(), public=False, expires_at=self.expiry(ttl_seconds)
        )
        try:
            (folder / _RECORD).write_bytes(json.encode(copy))
            self._move_in(folder, self._folder(run, copy.kind, copy.name))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return copy

    def find(self, run: str, kind: str, name: str) -> SavedCheckpoint | None:
        """Return a checkpoint, or None if there is none or its time is up."""
        if kind not in KINDS or not _RUN.fullmatch(run) or not _NAME.fullmatch(name):
            return None
        return self._read(self._folder(run, kind, name))

    def find_path(self, path: ParsedCheckpointTinkerPath) -> SavedCheckpoint | None:
        """Return the checkpoint that a ``tinker://`` path names, or None."""
        return self.find(path.training_run_id, path.checkpoint_id.partition("/")[0], path.name)

    def not_found(self, path: str, field: str) -> str:
        """Say that there is no such checkpoint."""
        return f"{field} {path!r:.300} is not in {self.root}: it was deleted, has expired, or was saved elsewhere"

    def folder_of(self, record: SavedCheckpoint) -> Path:
        """Return where a checkpoint's files are."""
        return self._folder(record.training_run_id, record.kind, record.name)

    def files_of(self, record: SavedCheckpoint) -> list[Path]:
        """Return the files of its adapter, by name."""
        return sorted(path for path in self.folder_of(record).glob("adapter*") if path.is_file())

    def snapshot(self, record: SavedCheckpoint) -> Path:
        """Return a folder with the same files, which later changes of the checkpoint do not reach.

        Raises:
            FileNotFoundError: The checkpoint was deleted meanwhile.
        """
        files = [path for path in self.folder_of(record).iterdir() if path.name != _RECORD]
        return self._scratch.copy(files, "sampler")

    def all(self, run: str | None = None) -> list[SavedCheckpoint]:
        """Return all checkpoints, or those of one run; the newest first."""
        runs = "*" if run is None else self._run_folder(run) if _RUN.fullmatch(run) else None
        found = self._read_all(f"{runs}/*/*") if runs else iter(())
        return sorted(found, key=lambda record: (record.time, record.tinker_path), reverse=True)

    def delete(self, record: SavedCheckpoint) -> None:
        """Delete a checkpoint; samplers that were made from it keep their own copy."""
        self._remove(self.folder_of(record))

    def change(self, record: SavedCheckpoint, **changes: Any) -> None:
        """Write other fields into ``checkpoint.json``."""
        folder = self._scratch.new_folder("change")
        (folder / _RECORD).write_bytes(json.encode(attrs.evolve(record, **changes)))
        _flush(folder / _RECORD)
        (folder / _RECORD).replace(self.folder_of(record) / _RECORD)
        folder.rmdir()

    def expiry(self, ttl_seconds: int | None) -> datetime | None:
        """Return the time that lies so many seconds ahead; None for never."""
        return None if ttl_seconds is None else self._now() + timedelta(seconds=ttl_seconds)

    def _folder(self, run: str, kind: str, name: str) -> Path:
        return self._base / self._run_folder(run) / kind / name

    def _run_folder(self, run: str) -> str:
        # A colon cannot stand in a file name everywhere, and a run id has no underscore of its own.
        return run.replace(":", "_")

    def _read_all(self, pattern: str) -> Iterator[SavedCheckpoint]:
        for folder in self._base.glob(pattern):
            record = self._read(folder)
            if record is not None:
                yield record

    def _read(self, folder: Path) -> SavedCheckpoint | None:
        try:
            record = json.decode((folder / _RECORD).read_bytes(), SavedCheckpoint)
        except (OSError, InvalidInputError):
            # Not there, being deleted by another process, or not ours.
            return None
        if record.expires_at is not None and record.expires_at <= self._now():
            self._remove(folder)
            return None
        return record

    def _remove(self, folder: Path) -> None:
        doomed = self._scratch.new_folder("delete")
        with contextlib.suppress(FileNotFoundError):
            folder.replace(doomed / "it")
        shutil.rmtree(doomed, ignore_errors=True)

    def _move_in(self, folder: Path, target: Path) -> None:
        for path in folder.iterdir():
            _flush(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._remove(target)
        folder.replace(target)
        _flush(target.parent)

    def _check_room(self) -> None:
        used = sum(record.size_bytes for record in self.all())
        if used >= self._quota_bytes:
            raise TinkexError(
                f"the checkpoints in {self._base} take {used} bytes, the limit is {self._quota_bytes}; "
                "delete some (tinkex checkpoint delete, or RestClient.delete_checkpoint)"
            )


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        # Some file systems cannot flush a folder; the files themselves are flushed.
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)
