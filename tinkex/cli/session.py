"""``tinkex session``: what programs did on the server."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from tinkex.cli._app import FIRST_CONTACT_ATTEMPTS, App, server_options
from tinkex.cli._tables import Columns, describe_time, format_option, show_table

if TYPE_CHECKING:
    from tinkex.clients import RestClient
    from tinkex.types import SessionSummary

COLUMNS: Columns = {
    "SESSION": lambda session: session.session_id,
    "BEGUN": lambda session: describe_time(session.created_at),
    "STATUS": lambda session: getattr(session.status, "type", "-"),
    "CHECKPOINTS": lambda session: str(session.checkpoints_count),
    "NAME": lambda session: session.display_name or "-",
}

PAGE = 50
"""Sessions to ask for at a time."""


@click.group("session")
def session_group() -> None:
    """Look at sessions."""


@session_group.command("list")
@click.option("--limit", type=click.IntRange(min=0), default=20, metavar="N", help="At most N; 0 for all. Default: 20.")
@server_options
@format_option
@click.pass_context
def list_sessions(context: click.Context, limit: int, base_url: str | None, output_format: str) -> None:
    """List your sessions, the newest first."""
    with context.ensure_object(App).open(base_url) as service:
        sessions = list(islice(_iterate(service.create_rest_client()), limit or None))
    show_table(sessions, COLUMNS, output_format)


def _iterate(rest: RestClient) -> Iterator[SessionSummary]:
    from tinkex.types import SessionSearchRequest

    wanted = SessionSearchRequest(limit=PAGE)
    while True:
        page = rest.search_sessions(wanted).result()
        yield from page.sessions
        if page.next_cursor is None:
            return
        wanted = attrs.evolve(wanted, cursor=page.next_cursor)


@session_group.command("export-trace")
@click.argument("session_id")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The file to write. Default: ID.pftrace.",
)
@click.option("--url-only", is_flag=True, help="Print the address to download it from, which works for a limited time.")
@server_options
@click.pass_context
def export_trace(
    context: click.Context, session_id: str, output: Path | None, url_only: bool, base_url: str | None
) -> None:
    """Fetch what a session did over time, as a trace for https://ui.perfetto.dev."""
    if url_only and output:
        raise click.UsageError("give either --output FILE or --url-only")
    with context.ensure_object(App).open(base_url) as service:
        rest = service.create_rest_client()
        if url_only:
            click.echo(rest.export_session_trace(session_id).result())
        else:
            click.echo(str(_fetch(rest, session_id, output or Path(f"{session_id}.pftrace"))))


def _fetch(rest: RestClient, session_id: str, target: Path) -> Path:
    from tinkex.config import RetryPolicy
    from tinkex.http import Downloader

    downloader = Downloader(retry=RetryPolicy(max_attempts=FIRST_CONTACT_ATTEMPTS))
    return downloader.fetch(lambda: rest.export_session_trace(session_id).result(), target)
