"""``tinkex run``: the models that were trained."""

from __future__ import annotations

from itertools import islice
from typing import Any

import click

from tinkex.cli._app import App, server_options
from tinkex.cli._tables import Columns, describe_time, format_option, show_one, show_table

COLUMNS: Columns = {
    "RUN": lambda run: run.training_run_id,
    "BASE MODEL": lambda run: run.base_model,
    "RANK": lambda run: str(run.lora_rank or "-"),
    "LAST REQUEST": lambda run: describe_time(run.last_request_time),
    "STATE": lambda run: "corrupted" if run.corrupted else "ok",
    "LAST CHECKPOINT": lambda run: _newest(run) or "-",
}


def _newest(run: Any) -> str | None:
    saved = [item for item in (run.last_checkpoint, run.last_sampler_checkpoint) if item is not None]
    return max(saved, key=lambda item: item.time).checkpoint_id if saved else None


@click.group("run")
def run_group() -> None:
    """Look at training runs."""


@run_group.command("list")
@click.option("--limit", type=click.IntRange(min=0), default=20, metavar="N", help="At most N; 0 for all. Default: 20.")
@server_options
@format_option
@click.pass_context
def list_runs(context: click.Context, limit: int, base_url: str | None, output_format: str) -> None:
    """List training runs, the last used first."""
    with context.ensure_object(App).open(base_url) as service:
        runs = list(islice(service.create_rest_client().iter_training_runs(), limit or None))
    show_table(runs, COLUMNS, output_format)


@run_group.command("info")
@click.argument("run_id")
@server_options
@format_option
@click.pass_context
def run_info(context: click.Context, run_id: str, base_url: str | None, output_format: str) -> None:
    """Show all that the server knows of a training run."""
    with context.ensure_object(App).open(base_url) as service:
        run = service.create_rest_client().get_training_run(run_id).result()
    show_one(run, output_format)
