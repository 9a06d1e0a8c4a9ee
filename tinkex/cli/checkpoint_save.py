"""``tinkex checkpoint save``: a checkpoint of a model that is not trained."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from tinkex.cli._app import App, choose_model, server_options
from tinkex.cli._errors import one_line
from tinkex.cli._tables import format_option, show_one
from tinkex.errors import NotFoundError, TinkexError

if TYPE_CHECKING:
    from tinkex.clients import ServiceClient, TrainingClient
    from tinkex.pipeline import APIFuture

__all__ = ["save"]

FROM_PATH_HELP = "Begin with the weights of a training checkpoint: tinker://<run>/weights/<name>."


@click.command()
@click.option("--name", required=True, metavar="NAME", help="What to call the checkpoint.")
@click.option("--base-model", metavar="NAME", help="Base model. Default: the server's, if it offers only one.")
@click.option("--model-path", metavar="PATH", help=FROM_PATH_HELP)
@click.option("--with-optimizer", is_flag=True, help="With --model-path: take its optimizer along.")
@click.option("--rank", type=click.IntRange(min=1), metavar="N", help="Rank of the LoRA adapter. Default: 32.")
@click.option("--seed", type=int, metavar="N", help="The same seed gives the same first weights.")
@click.option("--train-mlp/--no-train-mlp", default=None, help="Adapt the MLP layers. Default: yes.")
@click.option("--train-attn/--no-train-attn", default=None, help="Adapt the attention layers. Default: yes.")
@click.option("--train-unembed/--no-train-unembed", default=None, help="Adapt the output projection. Default: yes.")
@click.option("--for-sampler", is_flag=True, help="Save weights to sample from. Default: a checkpoint to train.")
@click.option(
    "--ttl", type=click.IntRange(min=3600), metavar="SECONDS", help="Delete it after this long. Default: never."
)
@server_options
@format_option
@click.pass_context
def save(
    context: click.Context,
    /,
    name: str,
    base_model: str | None,
    model_path: str | None,
    with_optimizer: bool,
    for_sampler: bool,
    ttl: int | None,
    base_url: str | None,
    output_format: str,
    **adapter: Any,
) -> None:
    """Make a model, from a base model or a checkpoint, and save it as it is.

    To begin several runs with the same weights, or to sample from what was saved to train.
    """
    from tinkex.cli._progress import make_reporter
    from tinkex.recipes.progress import wait_for
    from tinkex.types.weights import check_name, check_path

    given = {option: value for option, value in adapter.items() if value is not None}
    _refuse_clashes(base_model, model_path, with_optimizer, for_sampler, given)
    # Mistakes that the server would find once the model is there, which may take minutes.
    check_name(name)
    if model_path:
        check_path(model_path, "training", "--model-path")
    with context.ensure_object(App).open(base_url) as service:
        with closing(make_reporter()) as reporter:
            reporter.phase("making the model")
            model = _make(service, base_model, model_path, given, with_optimizer=with_optimizer)
            reporter.phase("saving")
            saving: APIFuture[Any] = (model.save_weights_for_sampler if for_sampler else model.save_state)(name, ttl)
            path = wait_for(saving, reporter).path
        kind = "sampler" if for_sampler else "training"
        show_one({"tinker_path": path, "checkpoint_type": kind, "base_model": model.base_model}, output_format)
        _unload(model)


def _refuse_clashes(
    base_model: str | None, model_path: str | None, with_optimizer: bool, for_sampler: bool, given: dict[str, Any]
) -> None:
    own = [f"--{option.replace('_', '-')}" for option in given] + (["--base-model"] if base_model else [])
    if model_path and own:
        raise click.UsageError(
            f"a checkpoint has its own model and adapter: leave out {', '.join(own)}, or --model-path"
        )
    if with_optimizer and not model_path:
        raise click.UsageError("--with-optimizer is for --model-path: a new model has no optimizer to take along")
    if with_optimizer and for_sampler:
        raise click.UsageError("give --with-optimizer or --for-sampler: a checkpoint to sample from has no optimizer")


def _make(
    service: ServiceClient,
    base_model: str | None,
    model_path: str | None,
    given: dict[str, Any],
    *,
    with_optimizer: bool,
) -> TrainingClient:
    if model_path is None:
        return service.create_lora_training_client(choose_model(service, base_model), **given)
    if with_optimizer:
        return service.create_training_client_from_state_with_optimizer(model_path)
    return service.create_training_client_from_state(model_path)


def _unload(model: TrainingClient) -> None:
    """Free the model; it is saved, so that nothing which goes wrong here is an error of the command."""
    try:
        model.unload().result()
    except NotFoundError:
        # Some servers free a model only with its session, which ends next.
        pass
    except TinkexError as error:
        click.echo(f"saved, but the server still has the model: {one_line(error)}", err=True)
