"""A checkpoint from the server to a folder of this machine."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import attrs

from tinkex.clients.paths import archive_url, locate
from tinkex.clients.unpack import safe_name, unpack
from tinkex.errors import InvalidInputError
from tinkex.http import Downloader
from tinkex.resources import TinkexAPI
from tinkex.types import ParsedCheckpointTinkerPath
from tinkex.types.weights import require_run

__all__ = ["Progress", "download_checkpoint"]

Progress = Callable[[int, "int | None"], None]
"""Called with the bytes that are there and those of the whole, None where the server does not say."""


def download_checkpoint(
    api: TinkexAPI, tinker_path: str, folder: Path, *, overwrite: bool = False, progress: Progress | None = None
) -> Path:
    """Fetch a checkpoint; see :meth:`tinkex.RestClient.download_checkpoint`."""
    require_run(tinker_path)
    folder = folder.expanduser().absolute()
    if not overwrite and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInputError(
            f"{folder} exists and is not empty; choose another folder, or overwrite it", field="folder"
        )
    parsed = locate(api, tinker_path)
    # Named by the checkpoint, so that a broken download is only ever resumed with the same one.
    mark = hashlib.sha256(tinker_path.encode()).hexdigest()[:12]
    work = folder.with_name(f".{folder.name}.{mark}.download")
    work.mkdir(parents=True, exist_ok=True)
    config = api.config
    downloader = Downloader(
        retry=config.retry, stop=api.stop, connect_timeout=config.connect_timeout, read_timeout=config.timeout
    )
    fetch = _fetch_files if parsed.checkpoint_type == "external" else _fetch_archive
    done = fetch(api, parsed, work, downloader, progress or _ignore)
    if folder.is_dir():
        shutil.rmtree(folder)
    done.replace(folder)
    shutil.rmtree(work)
    return folder


def _fetch_archive(
    api: TinkexAPI, checkpoint: ParsedCheckpointTinkerPath, work: Path, downloader: Downloader, progress: Progress
) -> Path:
    """Fetch the archive and unpack it; return the folder with the files."""

    def locate() -> str:
        return archive_url(api, checkpoint).url

    archive = downloader.fetch(locate, work / "archive", progress)
    files = _fresh(work / "files")
    unpack(archive, files)
    return files


def _fetch_files(
    api: TinkexAPI, checkpoint: ParsedCheckpointTinkerPath, work: Path, downloader: Downloader, progress: Progress
) -> Path:
    """Fetch each file by its own link; return the folder with the files."""
    links = _Links(api, checkpoint)
    files = work / "files"
    fetched = 0
    for name in sorted(links.current):
        target = files / safe_name(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_file():  # else it was fetched and checked before the download broke off
            downloader.fetch(partial(links.take, name), target, partial(_report_after, progress, fetched))
        fetched += target.stat().st_size
    return files


def _ignore(_done: int, _whole: int | None) -> None:
    pass


def _report_after(progress: Progress, before: int, done: int, _whole: int | None) -> None:
    progress(before + done, None)


@attrs.define(slots=True)
class _Links:
    """The links of an external checkpoint; each is good for one use here, then new ones are asked for."""

    api: TinkexAPI
    checkpoint: ParsedCheckpointTinkerPath
    current: dict[str, str] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.current = self._ask()

    def take(self, name: str) -> str:
        """Return a link that was not used before."""
        if name not in self.current:
            self.current = self._ask()
        return self.current.pop(name)

    def _ask(self) -> dict[str, str]:
        checkpoint = self.checkpoint
        return dict(
            self.api.weights.get_external_weights_urls(checkpoint.training_run_id, checkpoint.checkpoint_id).urls
        )


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder
