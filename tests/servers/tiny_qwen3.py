"""Make a folder with a tiny random Qwen3, a byte-level BPE tokenizer and a chat template.

    python -m tests.servers.tiny_qwen3 FOLDER

It needs torch, transformers and tokenizers, which the environment of every server has.
"""

from __future__ import annotations

import sys
from pathlib import Path

TEXT = "the quick brown fox jumps over the lazy dog, and a server answers what a client asks: one, two, three. " * 50
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VOCABULARY = 400


def make_tokenizer(folder: Path) -> int:
    """Write the tokenizer; return how many tokens it has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet, special_tokens=SPECIAL)
    tokenizer.train_from_iterator([TEXT], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHAT
    fast.save_pretrained(folder)
    return len(fast)


def make_model(folder: Path, vocabulary: int) -> None:
    """Write the weights, which are always the same."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        eos_token_id=2,
        pad_token_id=0,
    )
    Qwen3ForCausalLM(config).to(torch.float32).save_pretrained(folder, safe_serialization=True)


def main(folder: Path) -> None:
    """Write everything, unless it is there."""
    if not (folder / "model.safetensors").exists():
        folder.mkdir(parents=True, exist_ok=True)
        # An even number, so that it can be split between devices.
        make_model(folder, make_tokenizer(folder) + 15 & ~15)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
