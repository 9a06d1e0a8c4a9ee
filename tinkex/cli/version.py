"""``tinkex version``."""

from __future__ import annotations

import platform

import click

from tinkex._version import __version__


@click.command()
def version() -> None:
    """Show the version of tinkex and of Python."""
    click.echo(f"tinkex {__version__} (Python {platform.python_version()}, {platform.system()})")
