"""The cookbook's trainer for direct preference optimization, for a few steps."""

from __future__ import annotations

import sys

import chz
import datasets
from tinker_cookbook.preference import train_dpo
from tinker_cookbook.preference.dpo_datasets import DPODatasetBuilderFromComparisons
from tinker_cookbook.preference.preference_datasets import ComparisonDatasetBuilder
from tinker_cookbook.preference.types import Comparison, LabeledComparison
from toy import MODEL, RENDERER, WORDS, common, conversation


@chz.chz
class Toy(ComparisonDatasetBuilder):
    """Prefers the word itself to the word in capitals."""

    def get_train_and_test_datasets(self) -> tuple[datasets.Dataset, datasets.Dataset | None]:
        """Return the words, and none to test."""
        return datasets.Dataset.from_list([{"word": word} for word in WORDS]), None

    def example_to_labeled_comparison(self, example: dict) -> LabeledComparison:
        """Return a pair of answers, of which the first is better."""
        word = example["word"]
        question, good = conversation(word, word)
        _, bad = conversation(word, word.upper())
        return LabeledComparison(
            comparison=Comparison(prompt_conversation=[question], completion_A=[good], completion_B=[bad]), label="A"
        )


config = train_dpo.Config(
    log_path=sys.argv[1],
    model_name=MODEL,
    recipe_name="toy_dpo",
    renderer_name=RENDERER,
    dataset_builder=DPODatasetBuilderFromComparisons(common_config=common(batch_size=4), comparison_builder=Toy()),
    learning_rate=1e-3,
    lr_schedule="constant",
    num_epochs=2,
    dpo_beta=0.1,
    lora_rank=8,
    save_every=2,
    eval_every=0,
)
train_dpo.main(config)
