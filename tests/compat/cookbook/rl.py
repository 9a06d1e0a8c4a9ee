"""The cookbook's trainer for reinforcement learning, for a few steps."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Sequence

import chz
from tinker_cookbook import renderers
from tinker_cookbook.rl import train
from tinker_cookbook.rl.problem_env import ProblemEnv, ProblemGroupBuilder
from tinker_cookbook.rl.types import EnvGroupBuilder, RLDataset, RLDatasetBuilder
from tinker_cookbook.tokenizer_utils import get_tokenizer
from toy import MODEL, RENDERER, WORDS


class Vowels(ProblemEnv):
    """Rewards an answer for the share of its letters that are an e."""

    def __init__(self, word: str, renderer: renderers.Renderer) -> None:
        """Ask for one word."""
        super().__init__(renderer, format_coef=0.0)
        self.word = word

    def get_question(self) -> str:
        """Return the question."""
        return f"say {self.word}"

    def check_answer(self, sample_str: str) -> float:
        """Return the reward."""
        return sample_str.count("e") / max(len(sample_str), 1)

    def check_format(self, sample_str: str) -> bool:
        """Accept anything."""
        return True

    def get_reference_answer(self) -> str:
        """Return what would be best."""
        return "eeeeeeee"


class Words(RLDataset):
    """A few words a batch."""

    def get_batch(self, index: int) -> Sequence[EnvGroupBuilder]:
        """Return the groups of a batch."""
        renderer = renderers.get_renderer(RENDERER, get_tokenizer(MODEL))
        words = WORDS[index * 2 : index * 2 + 2]
        return [ProblemGroupBuilder(functools.partial(Vowels, word, renderer), num_envs=8) for word in words]

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(WORDS) // 2


@chz.chz
class Builder(RLDatasetBuilder):
    """Makes the data set."""

    async def __call__(self) -> tuple[RLDataset, RLDataset | None]:
        """Return it, and none to test."""
        return Words(), None


kind = sys.argv[2]
config = train.Config(
    log_path=sys.argv[1],
    model_name=MODEL,
    recipe_name="toy_rl",
    renderer_name=RENDERER,
    dataset_builder=Builder(),
    learning_rate=2e-3,
    max_tokens=8,
    lora_rank=8,
    save_every=2,
    eval_every=0,
    max_steps=4,
    loss_fn="ppo" if kind == "ppo" else "importance_sampling",
    num_substeps=2 if kind == "ppo" else 1,
    compute_post_kl=kind == "kl",
    kl_penalty_coef=0.01 if kind == "kl" else 0.0,
    kl_reference_config=train.KLReferenceConfig(base_model=MODEL) if kind == "kl" else None,
)
asyncio.run(train.main(config))
