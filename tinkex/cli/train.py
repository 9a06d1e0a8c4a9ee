"""``tinkex train``: fine-tune on a file."""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from tinkex.cli._app import App, choose_model, server_options, wire_option
from tinkex.cli._errors import INTERRUPTED
from tinkex.cli._interrupt import two_stage_interrupt
from tinkex.errors import TinkexError

if TYPE_CHECKING:
    from tinkex.clients import ServiceClient
    from tinkex.recipes.evaluate import Answer
    from tinkex.recipes.progress import Reporter
    from tinkex.recipes.sft import SFTResult, Stopping

FOLDER = click.Path(file_okay=False, path_type=Path)
AT_LEAST_0 = click.IntRange(min=0)
AT_LEAST_1 = click.IntRange(min=1)
ABOVE_0 = click.FloatRange(min=0, min_open=True)
SAVE_EVERY_HELP = "Steps between checkpoints; 0 saves at the end only. Default: 50."
MAX_TOKENS_HELP = "Longest answer to sample. Default: what the held-out answers need."
EXAMPLES_SHOWN = 3
CHANGEABLE = frozenset({"file", "base_url", "wire", "resume", "steps", "epochs"})
"""Options that go together with --resume; a run keeps all others as they were when it began."""


@click.group()
def train() -> None:
    """Fine-tune a model."""


@train.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--model", metavar="NAME", help="Base model. Default: the server's, if it offers only one.")
@server_options
@wire_option
@click.option("--out", type=FOLDER, metavar="DIR", help="Run folder. Default: a new one, runs/<name of FILE>.")
@click.option("--force", is_flag=True, help="Replace the run that is in the run folder.")
@click.option("--resume", type=FOLDER, metavar="DIR", help="Go on with the run in this folder.")
@click.option("--steps", type=AT_LEAST_1, metavar="N", help="Steps to train.")
@click.option("--epochs", type=ABOVE_0, metavar="X", help="Passes over FILE, instead of --steps.")
@click.option("--batch-size", type=AT_LEAST_1, metavar="N", help="Examples in a step.")
@click.option("--lr", "learning_rate", type=ABOVE_0, metavar="X", help="Learning rate; it falls to 0.")
@click.option("--rank", type=AT_LEAST_1, metavar="N", help="Rank of the LoRA adapter.")
@click.option("--seed", type=int, default=0, metavar="N", help="The same seed repeats the same run. Default: 0.")
@click.option("--holdout", type=AT_LEAST_0, metavar="N", help="Chats kept to ask. Default: 100, or 10% of FILE.")
@click.option("--max-tokens", type=AT_LEAST_1, metavar="N", help=MAX_TOKENS_HELP)
@click.option("--save-every", type=AT_LEAST_0, default=50, metavar="N", help=SAVE_EVERY_HELP)
@click.option("--eval/--no-eval", "evaluate", default=True, help="Ask the held-out prompts before and after.")
@click.option("--skip-long", is_flag=True, help="Leave out chats that are too long for the model.")
@click.pass_context
def sft(context: click.Context, /, file: Path, base_url: str | None, **options: Any) -> None:
    """Fine-tune on the chats in FILE (supervised, LoRA).

    Each line of FILE is {"messages": [{"role": ..., "content": ...}, ...]} or {"prompt": ..., "completion":
    ...}.

    Steps, learning rate, batch size and rank have defaults for each base model. Ctrl-C once stops after the
    steps in flight and saves a checkpoint; twice stops at once.
    """
    from tinkex.cli._progress import make_reporter

    resume: Path | None = options["resume"]
    if resume:
        _refuse_changes(context)
    app = context.ensure_object(App)
    folder = resume or _new_folder(options["out"], file)
    reporter = make_reporter()
    saved_before = _last_checkpoint(folder)
    try:
        with app.open(base_url, wire=options["wire"]) as service:
            if resume:
                result = _resume(service, file, folder, reporter, options)
            else:
                result = _begin(service, file, folder, reporter, options)
    except (TinkexError, KeyboardInterrupt) as error:
        checkpoint = _last_checkpoint(folder)
        # A refusal must not point at the run that was in the folder before.
        if checkpoint and (checkpoint != saved_before or isinstance(error, KeyboardInterrupt)):
            click.echo(f"saved at step {checkpoint['step']}; to resume:", err=True)
            click.echo(f"  {_resume_command(file, folder, base_url)}", err=True)
        raise
    finally:
        reporter.close()
    _show(result, file, base_url)
    if result.stopped:
        context.exit(INTERRUPTED)


def _refuse_changes(context: click.Context) -> None:
    given = {
        name for name in context.params if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    flags = {option.name: option.opts[0] for option in context.command.params}
    changes = sorted(flags[name] for name in given - CHANGEABLE)
    if changes:
        raise click.UsageError(
            f"{', '.join(changes)} cannot be changed when resuming; leave it out, or start a new run"
        )


def _new_folder(out: Path | None, file: Path) -> Path:
    from tinkex.recipes.run_folder import free_run_path

    return out or free_run_path(Path("runs"), file.stem)


def _begin(service: ServiceClient, file: Path, folder: Path, reporter: Reporter, options: dict[str, Any]) -> SFTResult:
    from tinkex.recipes.plan import SFTSettings
    from tinkex.recipes.sft import train_sft

    names = {field.name for field in attrs.fields(SFTSettings)}
    settings = SFTSettings.for_model(
        choose_model(service, options["model"], "--model"),
        **{name: value for name, value in options.items() if name in names},
    )
    return train_sft(
        service,
        file,
        folder,
        settings,
        force=options["force"],
        reporter=reporter,
        stopping=_stopping(reporter),
    )


def _resume(service: ServiceClient, file: Path, folder: Path, reporter: Reporter, options: dict[str, Any]) -> SFTResult:
    from tinkex.recipes.sft import resume_sft

    return resume_sft(
        service,
        file,
        folder,
        steps=options["steps"],
        epochs=options["epochs"],
        reporter=reporter,
        stopping=_stopping(reporter),
    )


def _stopping(reporter: Reporter) -> Stopping:
    def tell() -> None:
        reporter.note("stopping: finishing the steps in flight and saving a checkpoint (Ctrl-C again: at once)")

    return lambda: two_stage_interrupt(tell)


def _command(*words: object, base_url: str | None) -> str:
    """Return a command line that can be pasted."""
    server = ["--base-url", base_url] if base_url and base_url != os.environ.get("TINKER_BASE_URL") else []
    return shlex.join(["tinkex", *map(str, words), *server])


def _resume_command(file: Path, folder: Path, base_url: str | None, *more: object) -> str:
    return _command("train", "sft", file, "--resume", folder, *more, base_url=base_url)


def _last_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return the newest checkpoint of the run in a folder, if there is one."""
    from tinkex.recipes.run_folder import RunFolder

    with contextlib.suppress(TinkexError):
        return RunFolder.resume(folder).last_checkpoint()
    return None


def _show(result: SFTResult, file: Path, base_url: str | None) -> None:
    """Print what came out, and the commands to go on with."""
    if result.after:
        _show_answers(result.before, result.after)
    click.echo(f"run folder: {result.folder}")
    if result.loss_plot is None:
        click.echo('no loss.png: matplotlib is not installed (pip install "tinkex[local]")')
    click.echo(f"checkpoint: {result.state_path}")
    if result.stopped:
        click.echo(f"stopped after step {result.steps_done} of {result.steps_planned}; to resume:")
        click.echo(f"  {_resume_command(file, result.folder, base_url)}")
        return
    click.echo("to sample from it:")
    sample = ["sample", "--model-path", result.sampler_path, result.question]
    click.echo(f"  {_command(*sample, base_url=base_url)}")
    click.echo("to train it further:")
    click.echo(f"  {_resume_command(file, result.folder, base_url, '--steps', 2 * result.steps_done)}")


def _show_answers(before: list[Answer], after: list[Answer]) -> None:
    from tinkex.recipes.evaluate import count_exact

    earlier = f"{count_exact(before)}/{len(before)} before, " if before else ""
    click.echo(f"exact answers on held-out prompts: {earlier}{count_exact(after)}/{len(after)} after")
    for answer in after[:EXAMPLES_SHOWN]:
        verdict = "exact" if answer.exact else f"expected {answer.expected!r}"
        click.echo(f"  {answer.prompt!r} -> {answer.said!r} ({verdict})")
