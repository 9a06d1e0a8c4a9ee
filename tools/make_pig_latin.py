"""Write docs/examples/pig_latin.jsonl, the data of the first fine-tuning example.

    python tools/make_pig_latin.py

One line is one word: {"prompt": "pig latin: chair", "completion": "airchay"}. The rule: the leading
consonants move to the end and "ay" follows; a word that begins with a vowel only gets "way". The letter y
is a vowel except at the beginning.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import tiny_corpus as corpus

FILE = Path(__file__).resolve().parent.parent / "docs" / "examples" / "pig_latin.jsonl"


def pig_latin(word: str) -> str:
    """The word in pig latin; every word must have a vowel or a later y."""
    start = next(i for i, letter in enumerate(word) if letter in "aeiou" or (letter == "y" and i))
    return word[start:] + word[:start] + "ay" if start else word + "way"


def suitable(word: str) -> bool:
    """3 to 9 letters, some vowel, and no "qu", on which players of the game disagree."""
    return 3 <= len(word) <= 9 and "qu" not in word and any(letter in "aeiou" for letter in word)


def words(seed: int, count: int) -> list[str]:
    """All suitable words of the lists and pseudo-words up to the count, shuffled, none twice."""
    rng = random.Random(seed)
    chosen = {word: None for word in corpus.GAME_WORDS if suitable(word)}
    while len(chosen) < count:
        chosen.setdefault(corpus.pseudo_word(rng))
    return rng.sample(list(chosen), count)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=FILE)
    args = parser.parse_args()
    lines = [
        json.dumps({"prompt": f"pig latin: {word}", "completion": pig_latin(word)})
        for word in words(args.seed, args.count)
    ]
    args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
