"""``tinkex model``: what can be trained."""

from __future__ import annotations

import click

from tinkex.cli._app import App, server_options
from tinkex.cli._tables import Columns, format_option, show_table

WORDS = {True: "yes", False: "no", None: "-"}
COLUMNS: Columns = {
    "MODEL": lambda model: model.model_name or "-",
    "CONTEXT": lambda model: str(model.max_context_length or "-"),
    "TRAINS": lambda model: WORDS[model.trainable],
    "SAMPLES": lambda model: WORDS[model.sampleable],
}


@click.group("model")
def model_group() -> None:
    """Look at base models."""


@model_group.command("list")
@click.argument("substring", default="")
@server_options
@format_option
@click.pass_context
def list_models(context: click.Context, substring: str, base_url: str | None, output_format: str) -> None:
    """List the base models of the server, or those whose name has SUBSTRING, in upper or lower case."""
    with context.ensure_object(App).open(base_url) as service:
        offered = service.get_server_capabilities().supported_models
    found = [model for model in offered if substring.lower() in (model.model_name or "").lower()]
    show_table(sorted(found, key=lambda model: model.model_name or ""), COLUMNS, output_format)
