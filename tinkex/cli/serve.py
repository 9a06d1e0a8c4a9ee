"""``tinkex serve``: the embedded server, for other processes."""

from __future__ import annotations

from pathlib import Path

import click

from tinkex.cli._app import App

PORT = click.IntRange(0, 65535)


@click.command()
@click.option("--host", default="127.0.0.1", metavar="ADDRESS", help="Where to listen. Default: 127.0.0.1.")
@click.option("--port", type=PORT, default=8123, metavar="N", help="Default: 8123; 0 takes any free one.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where checkpoints are kept. Default: TINKEX_LOCAL_DIR, else ~/.cache/tinkex/local.",
)
@click.option(
    "--model",
    default="tiny",
    metavar="NAME",
    help="'tiny' (the default), the folder of a causal language model, or NAME=FOLDER.",
)
@click.option("--api-key", metavar="KEY", help="Key to ask for. Default: TINKER_API_KEY, else made and printed.")
@click.pass_context
def serve(context: click.Context, host: str, port: int, data_dir: Path | None, model: str, api_key: str | None) -> None:
    """Serve the API on this machine until Ctrl-C."""
    context.ensure_object(App).serve(host=host, port=port, data_dir=data_dir, model=model, api_key=api_key)
