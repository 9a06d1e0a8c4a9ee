"""``tinkex billing``: what was used and what it costs, for administrators of an organization."""

from __future__ import annotations

from typing import Any

import click

from tinkex.cli._app import App, server_options
from tinkex.cli._tables import (
    Columns,
    as_plain,
    describe_size,
    describe_time,
    format_option,
    show_csv,
    show_one,
    show_table,
)

AMOUNTS = {"token_count": "tokens", "count": "checkpoints", "gigabyte_hours": "GB h"}
"""Fields of an event that say how much, and the unit of each."""


def _amount(event: Any) -> str:
    info = as_plain(event.event_info)
    return next((f"{info[name]:g} {unit}" for name, unit in AMOUNTS.items() if name in info), "-")


def _dollars(amount: float | None) -> str:
    return "-" if amount is None else f"{amount:.4f}"


USAGE: Columns = {
    "HOUR": lambda event: describe_time(event.bucket_start),
    "WHAT": lambda event: event.event_info.type,
    "AMOUNT": _amount,
    "USD": lambda event: _dollars(event.estimated_cost_usd),
    "MODEL": lambda event: event.base_model or "-",
    "USER": lambda event: event.user_name or event.user_id or "-",
    "SESSION": lambda event: event.session_id or "-",
}
STORAGE: Columns = {
    "PROJECT": lambda item: item.project_id or "-",
    "USER": lambda item: item.user_name or item.user_email or item.org_user_urn or "-",
    "CHECKPOINTS": lambda item: str(item.checkpoint_count),
    "SIZE": lambda item: describe_size(item.size_bytes),
    "USD A MONTH": lambda item: _dollars(item.estimated_monthly_cost_usd),
}


@click.group()
def billing() -> None:
    """Look at what your organization uses, and estimates of what it costs."""


csv_option = click.option("--csv", "as_csv", is_flag=True, help="Print CSV with all fields, whatever --format says.")


@billing.command()
@click.argument("starting_on")
@click.argument("ending_before")
@csv_option
@server_options
@format_option
@click.pass_context
def usage(
    context: click.Context, starting_on: str, ending_before: str, as_csv: bool, base_url: str | None, output_format: str
) -> None:
    """Show what was used, by the hour.

    STARTING_ON and ENDING_BEFORE are whole hours, UTC unless they say otherwise: 2026-01-31 or
    2026-01-31T12:00:00Z. They are 14 days apart at most.
    """
    with context.ensure_object(App).open(base_url) as service:
        answer = service.create_rest_client().get_billing_usage(starting_on, ending_before).result()
    _show(answer, USAGE, as_csv, output_format)


@billing.command("checkpoint-storage")
@click.option("--project-id", metavar="PROJECT", help="Only that of one project.")
@csv_option
@server_options
@format_option
@click.pass_context
def checkpoint_storage(
    context: click.Context, project_id: str | None, as_csv: bool, base_url: str | None, output_format: str
) -> None:
    """Show how much room checkpoints take now, by project and user."""
    with context.ensure_object(App).open(base_url) as service:
        answer = service.create_rest_client().get_current_checkpoint_storage_usage(project_id).result()
    _show(answer, STORAGE, as_csv, output_format)


def _show(answer: Any, columns: Columns, as_csv: bool, output_format: str) -> None:
    if as_csv:
        show_csv(answer.data)
    elif output_format == "json":
        show_one(answer, output_format)
    else:
        show_table(answer.data, columns, output_format)
