"""The command line: ``tinkex NOUN VERB``, one noun per file.

The modules of this room import nothing heavy when they are loaded, so that ``tinkex --help`` answers at once;
each command imports what it needs when it runs.
"""

from __future__ import annotations

import click

from tinkex._version import __version__
from tinkex.cli._app import App
from tinkex.cli._errors import ErrorTable
from tinkex.cli.auth import auth_group
from tinkex.cli.billing import billing
from tinkex.cli.checkpoint import checkpoint
from tinkex.cli.model import model_group
from tinkex.cli.run import run_group
from tinkex.cli.sample import sample
from tinkex.cli.serve import serve
from tinkex.cli.session import session_group
from tinkex.cli.train import train
from tinkex.cli.version import version

__all__ = ["main"]


@click.group(cls=ErrorTable, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the whole traceback of an error.")
@click.pass_context
def main(context: click.Context, debug: bool) -> None:
    """Fine-tune and sample language models: on a Tinker server, or on this machine."""
    app = context.ensure_object(App)
    app.debug = debug


for command in (train, sample, model_group, checkpoint, run_group, session_group, billing, auth_group, serve, version):
    main.add_command(command)
