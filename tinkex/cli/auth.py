"""``tinkex auth``: the key of the hosted service."""

from __future__ import annotations

import sys

import click

from tinkex.cli import _login
from tinkex.cli._app import App, server_options
from tinkex.cli._tables import format_option, show_one
from tinkex.config import DEFAULT_BASE_URL, LOCAL, stored_key


@click.group("auth")
def auth_group() -> None:
    """Keep a key of the hosted service for the programs of this user."""


@auth_group.command()
def login() -> None:
    """Store a key: asked for on a terminal, else read from standard input. It is never shown."""
    key = click.prompt("API key", hide_input=True) if _at_terminal() else sys.stdin.readline()
    path = _login.store(key.strip())
    click.echo(f"stored in {path}")
    if _login.credential_source() != str(path):
        click.echo(f"{_login.credential_source()} is set and goes before it", err=True)


def _at_terminal() -> bool:
    return sys.stdin.isatty()


@auth_group.command()
@click.option("--revoke", is_flag=True, help="Delete the key on the server first: nobody can use it any more.")
@click.pass_context
def logout(context: click.Context, revoke: bool) -> None:
    """Delete the stored key from this machine."""
    key = stored_key()
    if key is None:
        click.echo("no key is stored")
        return
    if revoke:
        context.ensure_object(App).revoke(key)
    _login.forget()
    click.echo("revoked and deleted" if revoke else "deleted")


@auth_group.command()
@server_options
@format_option
def status(base_url: str | None, output_format: str) -> None:
    """Say which server is used, and where the credential comes from; nothing is sent."""
    source = _login.credential_source()
    base_url = base_url or (DEFAULT_BASE_URL if source else LOCAL)
    if source not in _login.VARIABLES and base_url != DEFAULT_BASE_URL:
        source = None  # a stored login is for the hosted service only
    show_one({"server": base_url, "credential": source or "none"}, output_format)


@auth_group.command()
@server_options
@format_option
@click.pass_context
def whoami(context: click.Context, base_url: str | None, output_format: str) -> None:
    """Ask the server who the credential belongs to."""
    with context.ensure_object(App).open(base_url) as service:
        identity = service.create_rest_client().whoami().result()
    show_one(identity, output_format)
