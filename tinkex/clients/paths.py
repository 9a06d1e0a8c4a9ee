"""Which checkpoint a path names, where a request needs its parts: run, kind and name."""

from __future__ import annotations

from tinkex.errors import APIStatusError, NotFoundError
from tinkex.http import lacks_endpoint
from tinkex.resources import TinkexAPI
from tinkex.types import Checkpoint, CheckpointArchiveUrlResponse, CheckpointType, ParsedCheckpointTinkerPath
from tinkex.types.weights import parts_of, require_run, unlocatable

__all__ = ["archive_url", "find_in_listing", "locate"]

_MOST_SHOWN = 5


def locate(api: TinkexAPI, tinker_path: str, wanted: CheckpointType | None = None) -> ParsedCheckpointTinkerPath:
    """Find out run, kind and name of a checkpoint: from its path, or from the listing of its run.

    Some servers write paths of another form, such as ``tinker://<run>/<name>``, and list the checkpoint with its kind.

    Args:
        api: Asks the server.
        tinker_path: The path.
        wanted: The kind of checkpoint that the call needs; None for any.

    Returns:
        The parts of the checkpoint, under the path that was given.

    Raises:
        InvalidInputError: The path is no path, is of another kind, names no run, or the listing of the run does not
            have exactly one checkpoint that it can mean.
        APIError: The run could not be listed.
    """
    run = require_run(tinker_path, wanted)
    parts = parts_of(tinker_path)
    if parts is not None:
        return parts
    try:
        listed = api.weights.list(run).checkpoints
    except NotFoundError as error:
        raise unlocatable(tinker_path, f"{run!r} of the path cannot be listed as a training run: {error}") from error
    found = find_in_listing([item for item in listed if wanted in (None, item.checkpoint_type)], tinker_path)
    if len(found) != 1:
        raise unlocatable(tinker_path, _mismatch(run, found, listed))
    said = parts_of(found[0].tinker_path)
    return ParsedCheckpointTinkerPath(
        tinker_path=tinker_path,
        training_run_id=run,
        checkpoint_type=found[0].checkpoint_type,
        # Some servers list an id without its kind, and want the kind in requests.
        checkpoint_id=found[0].checkpoint_id if said is None else said.checkpoint_id,
    )


def archive_url(api: TinkexAPI, parts: ParsedCheckpointTinkerPath) -> CheckpointArchiveUrlResponse:
    """Ask where the archive of a checkpoint is; by its name alone, where a server knows no kinds in this request.

    Raises:
        APIError: See :meth:`tinkex.resources.WeightsResource.get_checkpoint_archive_url`.
    """
    try:
        return api.weights.get_checkpoint_archive_url(parts.training_run_id, parts.checkpoint_id)
    except APIStatusError as error:
        if not lacks_endpoint(error):
            raise
        refusal = error
    try:
        return api.weights.get_checkpoint_archive_url(parts.training_run_id, parts.name)
    except APIStatusError:
        raise refusal from None


def find_in_listing(listed: list[Checkpoint], tinker_path: str) -> list[Checkpoint]:
    """Return those with this path, or else, if it does not say the kind, those with its last part for a name."""
    same = [item for item in listed if item.tinker_path == tinker_path]
    if same or parts_of(tinker_path) is not None:
        return same
    name = tinker_path.rsplit("/", 1)[-1]
    return [item for item in listed if item.checkpoint_id.rsplit("/", 1)[-1] == name]


def _mismatch(run: str, found: list[Checkpoint], listed: list[Checkpoint]) -> str:
    paths = [item.tinker_path for item in found or listed]
    shown = ", ".join(paths[:_MOST_SHOWN]) + (", ..." if len(paths) > _MOST_SHOWN else "")
    if found:
        return f"in the listing of run {run!r} it can mean {shown}: pass the one that is meant"
    return f"the listing of run {run!r} has no checkpoint of this path or name; it has {shown or 'none'}"
