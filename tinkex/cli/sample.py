"""``tinkex sample``: ask a model."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from tinkex.cli._app import App, choose_model, server_options

if TYPE_CHECKING:
    from tinkex.clients import SamplingClient
    from tinkex.types import SamplingParams


AT_LEAST_1 = click.IntRange(min=1)
TEMPERATURE = click.FloatRange(min=0)
SHARE = click.FloatRange(0, 1, min_open=True)


@click.command()
@click.argument("prompt")
@click.option("--model-path", metavar="PATH", help="Trained weights: tinker://<run>/sampler_weights/<name>.")
@click.option("--base-model", metavar="NAME", help="Base model. Default: the server's, if it offers only one.")
@server_options
@click.option("--raw", is_flag=True, help="Continue PROMPT as it is, without the chat template.")
@click.option("--max-tokens", type=AT_LEAST_1, default=128, metavar="N", help="Longest answer. Default: 128.")
@click.option("--temperature", type=TEMPERATURE, default=0.0, metavar="X", help="Default: 0, which is greedy.")
@click.option("--top-p", type=SHARE, default=1.0, metavar="X", help="Among the likeliest that sum to this share.")
@click.option("--top-k", type=click.IntRange(min=-1), default=-1, metavar="N", help="Among this many likeliest.")
@click.option("--seed", type=int, metavar="N", help="The same seed repeats the same answer.")
@click.option("--num-samples", type=AT_LEAST_1, default=1, metavar="N", help="How many answers. Default: 1.")
@click.option("--stop", multiple=True, metavar="TEXT", help="Text that ends an answer; may be repeated.")
@click.pass_context
def sample(
    context: click.Context,
    /,
    prompt: str,
    model_path: str | None,
    base_model: str | None,
    base_url: str | None,
    raw: bool,
    num_samples: int,
    stop: tuple[str, ...],
    **options: Any,
) -> None:
    """Ask a model and print its answers. PROMPT "-" is read from standard input."""
    from tinkex.types import SamplingParams

    if model_path and base_model:
        raise click.UsageError("give --model-path or --base-model, not both")
    text = sys.stdin.read() if prompt == "-" else prompt
    params = SamplingParams(stop=list(stop) or None, **options)
    with context.ensure_object(App).open(base_url) as service:
        sampler = service.create_sampling_client(
            model_path=model_path, base_model=None if model_path else choose_model(service, base_model)
        )
        answers = _ask(sampler, text, params, num_samples, raw=raw)
    for number, answer in enumerate(answers, start=1):
        click.echo(f"[{number}] {answer}" if num_samples > 1 else answer)


def _ask(sampler: SamplingClient, text: str, params: SamplingParams, count: int, *, raw: bool) -> list[str]:
    import attrs

    from tinkex.cli._progress import make_reporter
    from tinkex.recipes.chat_data import ChatRenderer, Message
    from tinkex.recipes.progress import Reporter, wait_for
    from tinkex.types import ModelInput

    tokenizer = sampler.get_tokenizer()
    if raw:
        tokens = tokenizer.encode(text, add_special_tokens=True)
    else:
        renderer = ChatRenderer(tokenizer)
        tokens = renderer.render_prompt([Message("user", text)])
        params = attrs.evolve(params, stop=_stop(params.stop, renderer.stop, tokenizer))
    reporter = make_reporter() if sys.stderr.isatty() else Reporter()
    reporter.phase("sampling")
    response = wait_for(sampler.sample(ModelInput.from_ints(tokens), count, params), reporter)
    reporter.close()
    return [tokenizer.decode(sequence.tokens, skip_special_tokens=True) for sequence in response.sequences]


def _stop(texts: Any, end_of_turn: list[int] | None, tokenizer: Any) -> list[str] | list[int] | None:
    """Add the end of the turn to the user's own stops; stop texts and stop tokens cannot be mixed."""
    if not texts or not end_of_turn:
        return texts or end_of_turn
    return [*texts, tokenizer.decode(end_of_turn)]
