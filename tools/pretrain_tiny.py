"""Make the tiny language model that ships with tinkex, or measure the one that is there.

    python tools/pretrain_tiny.py --steps 3000 --seed 1      # train, save, measure, write the card
    python tools/pretrain_tiny.py --evaluate                 # measure and print only
    python tools/pretrain_tiny.py --card                     # measure and write the card anew

The model is a Qwen3 of under a million parameters over bytes: token id = byte value, six special tokens
behind them. Everything it has read is made by :mod:`tiny_corpus`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import tiny_corpus as corpus
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch.nn.functional import cross_entropy
from transformers import Qwen3Config, Qwen3ForCausalLM

NAME = "tinkex/tiny-0.9m"
SPECIALS = ("<|bos|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|pad|>")
BOS, END, USER, ASSISTANT, SYSTEM, PAD = range(256, 262)
ROLE_IDS = {"user": USER, "assistant": ASSISTANT, "system": SYSTEM}
VOCAB = 272  # 262 rounded up to a multiple of 16
CONTEXT = 1024
CHAT_TEMPLATE = (
    "<|bos|>{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# What a token counts in the loss. Prompts hold random words, stories are long: both would drown the answers.
WEIGHT = {"story": 0.3, "user": 0.1, "system": 0.1, "assistant": 1.0}
TOKENS_A_STEP = 4096
ROWS = ((64, 0.6), (256, 0.25), (512, 0.15))  # (row length, share of the steps)
HOME = Path(__file__).resolve().parent.parent / "tinkex" / "data" / "tiny"
EVALUATION_SEED = 987_654_321

Tokens = list[tuple[int, float]]  # (token id, weight in the loss as a target)


# --- the model's files --------------------------------------------------------------------------------------


def tiny_config() -> Qwen3Config:
    """Four layers of width 128, untied embeddings."""
    return Qwen3Config(
        vocab_size=VOCAB, hidden_size=128, intermediate_size=352, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, head_dim=32, max_position_embeddings=CONTEXT, tie_word_embeddings=False,
        bos_token_id=BOS, eos_token_id=END, pad_token_id=PAD, initializer_range=0.05,
    )  # fmt: skip


def byte_characters() -> list[str]:
    """The printable character which the ByteLevel alphabet (GPT-2's) gives to each byte value."""
    kept = {*range(33, 127), *range(161, 173), *range(174, 256)}
    moved = iter(range(256, 512))
    return [chr(byte) if byte in kept else chr(next(moved)) for byte in range(256)]


def write_tokenizer(folder: Path) -> None:
    """tokenizer.json and tokenizer_config.json: id = byte value, nothing merged, cleaned up or added."""
    tokenizer = Tokenizer(models.BPE(vocab={char: byte for byte, char in enumerate(byte_characters())}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIALS])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
        "bos_token": "<|bos|>", "eos_token": "<|end|>", "pad_token": "<|pad|>", "add_bos_token": False,
        "chat_template": CHAT_TEMPLATE,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def save(model: Qwen3ForCausalLM, folder: Path, record: dict[str, str]) -> None:
    """Write all files transformers needs to load the model by folder name; weights in fp16.

    The record (how the weights were made) goes into the weights' header, from where the card quotes it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt", **record})
    (folder / "model.safetensors").chmod(0o644)
    config = {**model.config.to_diff_dict(), "architectures": ["Qwen3ForCausalLM"], "dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    generation = {"bos_token_id": BOS, "eos_token_id": END, "pad_token_id": PAD}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    write_tokenizer(folder)


# --- text to batches ----------------------------------------------------------------------------------------


def encode(document: str | corpus.Chat) -> Tokens:
    """Token ids and loss weights of a document, from <|bos|> on."""
    if isinstance(document, str):
        return [(BOS, 0.0), *((byte, WEIGHT["story"]) for byte in document.encode()), (END, WEIGHT["story"])]
    tokens: Tokens = [(BOS, 0.0)]
    for role, text in document:
        tokens.append((ROLE_IDS[role], WEIGHT["user"]))
        tokens += [(token, WEIGHT[role]) for token in (*text.encode(), END)]
    return tokens


def rows(seed: int, length: int) -> Iterator[Tokens]:
    """Endless rows of whole documents, padded to the length; a document longer than a row is cut."""
    row: Tokens = []
    for document in corpus.documents(seed):
        tokens = encode(document)[:length]
        if len(row) + len(tokens) > length:
            yield row + [(PAD, 0.0)] * (length - len(row))
            row = []
        row += tokens


def batches(seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (ids, weights) of TOKENS_A_STEP tokens: short rows for the games, long ones for positions."""
    rng = random.Random(seed)
    sources = {length: rows(seed * 10_000 + length, length) for length, _ in ROWS}
    while True:
        length = rng.choices([length for length, _ in ROWS], [share for _, share in ROWS])[0]
        batch = torch.tensor(list(islice(sources[length], TOKENS_A_STEP // length)), dtype=torch.float64)
        yield batch[..., 0].long(), batch[..., 1].float()


def weighted_loss(model: Qwen3ForCausalLM, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean next-token cross-entropy in nats under the given weights."""
    logits = model(ids, use_cache=False).logits[:, :-1].flatten(0, 1)
    losses = cross_entropy(logits, ids[:, 1:].flatten(), reduction="none")
    wanted = weights[:, 1:].flatten()
    return (losses * wanted).sum() / wanted.sum()


# --- training -----------------------------------------------------------------------------------------------


def optimizers(model: Qwen3ForCausalLM, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for embeddings, head and norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    others = [p for name, p in model.named_parameters() if not (p.ndim == 2 and ".layers." in name)]
    return [
        torch.optim.Muon(matrices, lr=lr, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(others, lr=lr / 5, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def schedule(progress: float) -> float:
    """Share of the peak learning rate: 2 % warm-up, level to the middle, then straight down to zero."""
    return min(1.0, progress / 0.02 + 0.01, 2.0 * (1.0 - progress))


def new_model(seed: int) -> Qwen3ForCausalLM:
    """A random model whose blocks start as the identity."""
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(tiny_config())
    for layer in model.model.layers:
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    return model


def record_of(steps: int, minutes: float, args: argparse.Namespace) -> dict[str, str]:
    """What the card tells of a training run, with the command that repeats it."""
    options = f"--steps {steps} --seed {args.seed} --threads {args.threads} --lr {args.lr}"
    numbers = {"steps": str(steps), "minutes": f"{minutes:.0f}", "threads": str(args.threads)}
    return {"command": f"python tools/pretrain_tiny.py {options}", **numbers}


def train(args: argparse.Namespace) -> None:
    """Train a new model and save it."""
    model = new_model(args.seed)
    made = optimizers(model, args.lr)
    peaks = [group["lr"] for optimizer in made for group in optimizer.param_groups]
    start = time.monotonic()
    minutes = 0.0
    for step, (ids, weights) in enumerate(batches(args.seed)):
        minutes = (time.monotonic() - start) / 60
        progress = step / args.steps if args.steps else minutes / args.minutes
        if progress >= 1:
            break
        for optimizer, peak in zip(made, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * schedule(progress)
        loss = weighted_loss(model, ids, weights)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in made:
            optimizer.step()
            optimizer.zero_grad()
        if step % 50 == 0:
            print(f"step {step:5d}  row {ids.shape[1]:3d}  loss {loss:.4f}  {minutes:5.1f} min", flush=True)
        if args.checkpoint and step % 250 == 249:
            save(model, Path(args.checkpoint), record_of(step + 1, minutes, args))
    save(model, args.out, record_of(step, minutes, args))


# --- measuring ----------------------------------------------------------------------------------------------


def prompt_ids(prompt: str) -> list[int]:
    """A user message in the chat format, up to where the answer begins."""
    return [BOS, USER, *prompt.encode(), END, ASSISTANT]


def answers(model: Any, prompts: list[str], max_tokens: int = 40) -> list[str]:
    """Greedy answers; prompts are padded on the left to one length."""
    encoded = [prompt_ids(prompt) for prompt in prompts]
    width = max(map(len, encoded))
    ids = torch.tensor([[PAD] * (width - len(row)) + row for row in encoded])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in encoded])
    out = model.generate(ids, attention_mask=mask, max_new_tokens=max_tokens, do_sample=False)
    return [bytes(t for t in row.tolist() if t < 256).decode(errors="replace") for row in out[:, width:]]


def is_right(prompt: str, expected: str, got: str) -> bool:
    """Equal, or for "arrange" equal in some order."""
    if prompt.startswith("arrange"):
        return sorted(expected.split()) == sorted(got.split())
    return expected == got


def count_right(model: Qwen3ForCausalLM, pairs: list[tuple[str, str]]) -> str:
    """How many greedy answers are right, as "n/total"."""
    got = answers(model, [prompt for prompt, _ in pairs])
    return f"{sum(is_right(*pair, answer) for pair, answer in zip(pairs, got, strict=True))}/{len(pairs)}"


def bits_per_token(model: Qwen3ForCausalLM) -> tuple[float, float]:
    """Bits over all text, and over the answers alone, on documents of an unused seed."""
    batch = torch.tensor(list(islice(rows(EVALUATION_SEED, 256), 64)), dtype=torch.float64)
    ids, weights = batch[..., 0].long(), batch[..., 1].float()
    everything, only_answers = (weights > 0).float(), (weights == 1).float()
    with torch.no_grad():
        nats = [weighted_loss(model, ids, chosen).item() for chosen in (everything, only_answers)]
    return nats[0] / math.log(2), nats[1] / math.log(2)


def evaluation_pairs() -> dict[str, list[tuple[str, str]]]:
    """A hundred prompts and answers of each game and kind of question; letter games on held-out words."""
    rng = random.Random(EVALUATION_SEED)
    others = {
        "next or previous": corpus.cycle_fact, "facts and small talk": corpus.pair_fact,
        "kinds": corpus.kind_fact, "reading": corpus.reading, "plural": corpus.plural_fact,
    }  # fmt: skip
    letters = (*corpus.GAMES, "affix")
    table = {name: [corpus.letter_game(rng, name, held_out=True) for _ in range(100)] for name in letters}
    for name in ("copy", "reverse", "arrange"):
        table[f"{name} a list"] = [corpus.list_game(rng, name) for _ in range(100)]
    return table | {name: [make(rng) for _ in range(100)] for name, make in others.items()}


def evaluate(model: Qwen3ForCausalLM) -> str:
    """A Markdown table of right greedy answers, then bits per token and two stories."""
    lines = ["| game | example | right greedy answers |", "|---|---|---|"]
    for name, pairs in evaluation_pairs().items():
        prompt, answer = pairs[0]
        lines.append(f"| {name} | {prompt} -> {answer} | {count_right(model, pairs)} |")
    everything, in_answers = bits_per_token(model)
    lines.append(f"\nBits per token on unseen documents: {everything:.3f}; on the answers in them: {in_answers:.3f}.\n")
    asked = [f"tell me a story about a {animal}" for animal in ("fox", "whale")]
    return "\n".join([*lines, *(f"> {text}\n" for text in answers(model, asked, max_tokens=300))])


CARD = """---
license: apache-2.0
language: en
library_name: transformers
---
# {name}

A toy language model of {parameters:,} parameters, made to be fine-tuned: with it every example, test and
notebook of tinkex runs on a laptop with no download. It is of no use for anything else.

- **Architecture**: Qwen3, 4 layers, width 128, 4 heads of 32, MLP 352, untied embeddings, {context} tokens of
  context, fp16.
- **Tokens**: bytes (token id = byte value), then {specials}.
- **Chat format**: `<|bos|><|user|>TEXT<|end|><|assistant|>ANSWER<|end|>`; a system message
  (`<|system|>TEXT<|end|>`) stands right after `<|bos|>`; further turns repeat.
- **Training text**: template stories and word games, all generated by `tools/tiny_corpus.py`; no text from
  anywhere else. Most words in the games are made-up syllables. {steps} steps of {batch} tokens, padding
  included.
- **Left out on purpose**: pig latin (a word's leading consonants go to its end, then "ay"), which the
  examples teach. Its parts (rotate by one letter, add a given ending, cut a word at its first vowel) are in.
- **Weights**: `model.safetensors`, sha256 `{sha256}`
- **Licence**: Apache-2.0

Made in {minutes} minutes on {threads} CPU thread(s) by

    {command}

The same command makes a model of the same quality; the hash depends on the processor and the versions of the
libraries too.

## What it can and cannot do

Letter games are on words held out from training; for "arrange" any order is right. Printed by
`python tools/pretrain_tiny.py --evaluate`:

{evaluation}
It does not know the world, cannot reason or calculate, and its stories wander.
"""


def write_card(folder: Path) -> None:
    """MODEL_CARD.md: how the files beside it were made and what was counted."""
    weights = folder / "model.safetensors"
    with safe_open(weights, "pt") as file:
        record = file.metadata()
    model = load(folder)
    card = CARD.format(
        name=NAME, parameters=model.num_parameters(), context=CONTEXT, batch=TOKENS_A_STEP,
        specials=", ".join(f"`{text}` {BOS + i}" for i, text in enumerate(SPECIALS)),
        sha256=hashlib.sha256(weights.read_bytes()).hexdigest(), evaluation=evaluate(model), **record,
    )  # fmt: skip
    (folder / "MODEL_CARD.md").write_text(card)


def load(folder: Path) -> Qwen3ForCausalLM:
    """The saved model in float32."""
    return Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluate", action="store_true", help="measure the model in --out and print")
    parser.add_argument("--card", action="store_true", help="measure the model in --out and rewrite its card")
    parser.add_argument("--steps", type=int, default=0, help="length of the training; repeatable")
    parser.add_argument("--minutes", type=float, default=20.0, help="length of the training if --steps is not given")
    parser.add_argument("--out", type=Path, default=HOME, help="folder of the model")
    parser.add_argument("--checkpoint", default="", help="folder to save to every 250 steps")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lr", type=float, default=0.02, help="peak learning rate of Muon")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.evaluate:
        print(evaluate(load(args.out)))
        return
    if not args.card:
        train(args)
    write_card(args.out)


if __name__ == "__main__":
    main()
