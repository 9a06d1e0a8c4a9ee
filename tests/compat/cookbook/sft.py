"""The cookbook's supervised trainer, for a few steps."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tinker_cookbook.supervised import train
from tinker_cookbook.supervised.data import FromConversationFileBuilder
from toy import MODEL, RENDERER, WORDS, common, conversation, write_rows

log_path = Path(sys.argv[1])
rows = [{"messages": conversation(word, word * 2)} for word in WORDS]
config = train.Config(
    log_path=str(log_path),
    model_name=MODEL,
    recipe_name="toy_sft",
    renderer_name=RENDERER,
    dataset_builder=FromConversationFileBuilder(
        common_config=common(batch_size=4),
        file_path=write_rows(log_path.with_suffix(".jsonl"), rows),
        test_size=4,
    ),
    learning_rate=2e-3,
    num_epochs=int(sys.argv[2]),
    lora_rank=8,
    save_every=2,
    eval_every=2,
)
asyncio.run(train.main(config))
