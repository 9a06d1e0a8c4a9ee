"""``tinkex checkpoint``: what was saved."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tinkex.cli._app import App, server_options
from tinkex.cli._tables import Columns, as_plain, describe_size, describe_time, format_option, show_one, show_table
from tinkex.cli.checkpoint_save import save

if TYPE_CHECKING:
    from tinkex.clients import RestClient
    from tinkex.clients.download import Progress
    from tinkex.types import Checkpoint

COLUMNS: Columns = {
    "PATH": lambda item: item.tinker_path,
    "TYPE": lambda item: item.checkpoint_type,
    "SIZE": lambda item: describe_size(item.size_bytes),
    "SAVED": lambda item: describe_time(item.time),
    "EXPIRES": lambda item: describe_time(item.expires_at, missing="never"),
    "PUBLIC": lambda item: "yes" if item.public else "no",
}
DATE = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])


@click.group()
def checkpoint() -> None:
    """List, save, share, fetch, send on and delete checkpoints."""


checkpoint.add_command(save)


@contextmanager
def _rest(context: click.Context, base_url: str | None) -> Iterator[RestClient]:
    with context.ensure_object(App).open(base_url) as service:
        yield service.create_rest_client()


def _iterate(rest: RestClient, run_id: str | None) -> Iterator[Checkpoint]:
    return rest.iter_checkpoints() if run_id is None else iter(rest.list_checkpoints(run_id).result().checkpoints)


@checkpoint.command("list")
@click.option("--run-id", metavar="RUN", help="Only those of one training run.")
@click.option("--limit", type=click.IntRange(min=0), default=20, metavar="N", help="At most N; 0 for all. Default: 20.")
@server_options
@format_option
@click.pass_context
def list_checkpoints(
    context: click.Context, run_id: str | None, limit: int, base_url: str | None, output_format: str
) -> None:
    """List checkpoints, the newest first."""
    with _rest(context, base_url) as rest:
        found = list(islice(_iterate(rest, run_id), limit or None))
    show_table(found, COLUMNS, output_format)


@checkpoint.command()
@click.argument("path")
@server_options
@format_option
@click.pass_context
def info(context: click.Context, path: str, base_url: str | None, output_format: str) -> None:
    """Show all that the server knows of a checkpoint."""
    with _rest(context, base_url) as rest:
        needs = as_plain(rest.get_weights_info_by_tinker_path(path).result())
        # Those of others are described but not listed.
        own = _own_checkpoint(rest, path)
    show_one({"tinker_path": path, **needs, **(as_plain(own) if own else {})}, output_format)


def _own_checkpoint(rest: RestClient, path: str) -> Checkpoint | None:
    from tinkex.clients.paths import find_in_listing
    from tinkex.errors import NotFoundError, PermissionDeniedError
    from tinkex.types.weights import run_of

    run_id = run_of(path)
    if run_id is None:
        return None
    try:
        found = find_in_listing(list(_iterate(rest, run_id)), path)
    except (NotFoundError, PermissionDeniedError):
        return None
    return found[0] if len(found) == 1 else None


@checkpoint.command()
@click.argument("path")
@server_options
@click.pass_context
def publish(context: click.Context, path: str, base_url: str | None) -> None:
    """Let everybody use a checkpoint."""
    with _rest(context, base_url) as rest:
        rest.publish_checkpoint_from_tinker_path(path).result()
    click.echo(f"public: {path}")


@checkpoint.command()
@click.argument("path")
@server_options
@click.pass_context
def unpublish(context: click.Context, path: str, base_url: str | None) -> None:
    """Keep a published checkpoint to yourself again."""
    with _rest(context, base_url) as rest:
        rest.unpublish_checkpoint_from_tinker_path(path).result()
    click.echo(f"private: {path}")


@checkpoint.command("set-ttl")
@click.argument("path")
@click.option("--ttl", type=int, metavar="SECONDS", help="Delete it after this long, 3600 seconds to ten years.")
@click.option("--remove", is_flag=True, help="Keep it for ever.")
@server_options
@click.pass_context
def set_ttl(context: click.Context, path: str, ttl: int | None, remove: bool, base_url: str | None) -> None:
    """Set when a checkpoint is deleted."""
    if (ttl is None) != remove:
        raise click.UsageError("give either --ttl SECONDS or --remove")
    with _rest(context, base_url) as rest:
        rest.set_checkpoint_ttl_from_tinker_path(path, ttl).result()
    click.echo(f"kept for ever: {path}" if remove else f"deleted in {ttl} s: {path}")


@checkpoint.command()
@click.argument("paths", nargs=-1)
@click.option("--run-id", metavar="RUN", help="Those of one training run.")
@click.option("--type", "kind", type=click.Choice(["training", "sampler", "external"]), help="Those of one type.")
@click.option("--before", type=DATE, metavar="DATE", help="Those saved before, UTC: 2026-01-31 or 2026-01-31T12:00:00.")
@click.option("--after", type=DATE, metavar="DATE", help="Those saved at or after, UTC.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@server_options
@click.pass_context
def delete(context: click.Context, /, paths: tuple[str, ...], yes: bool, base_url: str | None, **filters: Any) -> None:
    """Delete checkpoints for good: those named, or all that fit the options."""
    if bool(paths) == any(value is not None for value in filters.values()):
        raise click.UsageError("name checkpoints, or choose them with --run-id, --type, --before or --after")
    with _rest(context, base_url) as rest:
        chosen = list(paths) or [item.tinker_path for item in _iterate(rest, filters["run_id"]) if _fits(item, filters)]
        for path in chosen:
            click.echo(path)
        if not chosen:
            click.echo("nothing fits")
        elif yes or click.confirm(f"Delete {len(chosen)} of your checkpoints for good?", abort=True):
            for future in [rest.delete_checkpoint_from_tinker_path(path) for path in chosen]:
                future.result()
            click.echo(f"deleted {len(chosen)}")


def _fits(item: Checkpoint, filters: dict[str, Any]) -> bool:
    saved = item.time.astimezone(timezone.utc) if item.time.tzinfo else item.time.replace(tzinfo=timezone.utc)
    before, after = (_utc(filters[name]) for name in ("before", "after"))
    return (
        filters["kind"] in (None, item.checkpoint_type)
        and (before is None or saved < before)
        and (after is None or saved >= after)
    )


def _utc(time: datetime | None) -> datetime | None:
    return None if time is None else time.replace(tzinfo=timezone.utc)


@checkpoint.command()
@click.argument("path")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The folder to make. Default: the name of the checkpoint.",
)
@click.option("--force", is_flag=True, help="Replace the folder if it has files.")
@server_options
@click.pass_context
def download(context: click.Context, path: str, output: Path | None, force: bool, base_url: str | None) -> None:
    """Fetch a checkpoint into a folder that peft loads; run it again to go on after a break."""
    name = path.rsplit("/", 1)[-1]
    if output is None and name in ("", ".", ".."):
        raise click.UsageError(f"{path} has no name for a folder: give --output DIR")
    folder = output or Path(name)
    with _rest(context, base_url) as rest, _bar() as progress:
        done = rest.download_checkpoint(path, folder, overwrite=force, progress=progress)
    click.echo(str(done))


@checkpoint.command("push-hf")
@click.argument("path")
@click.option("-r", "--repo", "repo_id", required=True, metavar="ORG/NAME", help="Model repository; made if needed.")
@click.option("--public", is_flag=True, help="Let everybody see a repository that is made. Default: private.")
@click.option("--revision", metavar="BRANCH", help="Send to this branch; made if needed.")
@click.option("--commit-message", metavar="TEXT", help="What to call the commit.")
@click.option("--create-pr", is_flag=True, help="Open a pull request instead.")
@click.option("--allow-pattern", "allow_patterns", multiple=True, metavar="GLOB", help="Send only such files.")
@click.option("--ignore-pattern", "ignore_patterns", multiple=True, metavar="GLOB", help="Leave out such files.")
@click.option("--no-model-card", is_flag=True, help="Do not write a README.md.")
@server_options
@click.pass_context
def push_hf(
    context: click.Context, /, path: str, public: bool, no_model_card: bool, base_url: str | None, **options: Any
) -> None:
    """Send a checkpoint to the Hugging Face hub, and print its page."""
    from tinkex.recipes.hub import push_checkpoint

    # An option that was not given is an empty tuple, and no pattern at all is not the same as any.
    options["allow_patterns"] = options["allow_patterns"] or None
    with _rest(context, base_url) as rest, _bar() as progress:
        pushed = push_checkpoint(
            rest, path, private=not public, model_card=not no_model_card, progress=progress, **options
        )
    click.echo(pushed.url)


@contextmanager
def _bar() -> Iterator[Progress]:
    """Show a bar of bytes, on a terminal."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    with tqdm(
        desc="downloading",
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        disable=not sys.stderr.isatty(),
        file=sys.stderr,
    ) as bar:

        def progress(done: int, whole: int | None) -> None:
            bar.total = whole
            bar.update(done - bar.n)

        yield progress
