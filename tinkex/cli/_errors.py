"""Errors for people at a terminal: one line that ends with the next step, and an exit status."""

from __future__ import annotations

from typing import Any

import click

from tinkex import errors
from tinkex.cli._app import App

__all__ = ["INTERRUPTED", "ErrorTable", "one_line"]

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 and the number of the signal, as shells have it."""

NEXT_STEP: tuple[tuple[type[BaseException], str], ...] = (
    (errors.BillingError, "look at the billing page of the account"),
    (errors.PermissionDeniedError, "check that the key belongs to the account that owns this"),
    (errors.RateLimitError, "wait a little and run the command again"),
    (errors.InternalServerError, "run the command again in a moment"),
)
"""What to do next where the message is the server's; the messages of all other errors say it themselves."""


def one_line(error: BaseException) -> str:
    """Return an error in one line, with the next step."""
    if isinstance(error, errors.PipelineBrokenError) and error.__cause__:
        return one_line(error.__cause__)
    # The message alone: what str() adds, such as the idempotency key, is for --debug and for logs.
    text = " ".join(str(getattr(error, "message", error)).split())
    request_id = getattr(error, "request_id", None)
    name = f" (request id {request_id})" if request_id else ""
    step = next((f"; {step}" for kind, step in NEXT_STEP if isinstance(error, kind)), "")
    return text + name + step


class _OneLineError(click.ClickException):
    """Shown by click as one line; exit status 1."""

    def show(self, file: Any = None) -> None:
        click.secho("error: ", fg="red", bold=True, nl=False, err=True, file=file)
        click.echo(self.message, err=True, file=file)


class ErrorTable(click.Group):
    """A group that turns errors into one line on stderr, unless ``--debug`` is given.

    Besides tinkex's own these are ImportErrors, whose messages name the extra to install.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except (errors.TinkexError, ImportError) as error:
            if ctx.ensure_object(App).debug:
                raise
            raise _OneLineError(one_line(error)) from error
