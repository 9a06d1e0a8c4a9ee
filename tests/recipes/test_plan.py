"""What a run does at each step."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinkex.data import TINY_NAME
from tinkex.errors import InvalidInputError
from tinkex.recipes.chat_data import Conversation, Message
from tinkex.recipes.plan import DEFAULTS, OTHER_DEFAULTS, Plan, SFTSettings, split_holdout


def plan(count=10, **given):
    """Plan a run."""
    return Plan.of(SFTSettings(base_model="m", **{"steps": 20, "batch_size": 4, **given}), count)


def chats(prompts):
    """Make conversations of these prompts."""
    return [
        Conversation(messages=(Message("user", p), Message("assistant", str(i))), line=i + 1)
        for i, p in enumerate(prompts)
    ]


@given(
    count=st.integers(1, 40), batch=st.integers(1, 50), steps=st.integers(1, 30), seed=st.integers(), cut=st.integers(0)
)
def test_a_resumed_plan_is_the_rest_of_the_uninterrupted_one(count, batch, steps, seed, cut):
    """Batches and learning rates depend on settings and step alone, however the run is cut."""
    whole = plan(count, batch_size=batch, steps=steps, seed=seed)
    resumed = plan(count, batch_size=batch, steps=steps, seed=seed)
    start = cut % steps
    list(map(whole.batch, range(steps)))  # what ran before must not matter
    assert [resumed.batch(s) for s in range(start, steps)] == [whole.batch(s) for s in range(start, steps)]
    assert [resumed.rate(s) for s in range(start, steps)] == [whole.rate(s) for s in range(start, steps)]


@given(count=st.integers(1, 40), batch=st.integers(1, 50), steps=st.integers(1, 30))
def test_batches_are_full_and_no_example_is_favoured(count, batch, steps):
    """At any time each example was seen equally often, but for the epoch that is going on."""
    run = plan(count, batch_size=batch, steps=steps)
    batches = [run.batch(step) for step in range(steps)]
    seen = Counter(position for positions in batches for position in positions)
    assert {len(positions) for positions in batches} == {min(batch, count)}
    assert max(seen.values()) - min(seen.get(position, 0) for position in range(count)) <= 1


def test_the_seed_decides_the_order():
    """Runs differ by seed, and each epoch has an order of its own."""
    first, second = plan(seed=1), plan(seed=2)
    assert [first.batch(s) for s in range(5)] != [second.batch(s) for s in range(5)]
    long = plan(count=50, batch_size=50)
    assert long.batch(0) != long.batch(1)


def test_the_rate_falls_in_a_straight_line_to_zero_after_the_last_step():
    """The first step has the whole rate, each later one the same amount less."""
    run = plan(steps=4, learning_rate=1.0)
    assert [run.rate(step) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize(("epochs", "count", "steps"), [(1, 10, 2), (2.5, 10, 6), (0.001, 10, 1), (3, 2, 3)])
def test_epochs_are_turned_into_steps(epochs, count, steps):
    """An epoch is as many steps as it takes to see each example once, never none."""
    assert plan(count, steps=None, epochs=epochs).steps == steps


@given(prompts=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=30), seed=st.integers(), data=st.data())
def test_no_held_out_prompt_is_trained_on(prompts, seed, data):
    """The split keeps everything, in order, and shares no prompt, even where a file repeats one."""
    wanted = data.draw(st.none() | st.integers(0, len(prompts) - 1))
    items = chats(prompts)
    train, held_out = split_holdout(items, wanted, seed)
    assert sorted(train + held_out, key=lambda item: item.line) == items
    assert not {item.prompt for item in train} & {item.prompt for item in held_out}
    assert train
    assert len(held_out) <= (len(prompts) // 10 if wanted is None else wanted)
    assert (train, held_out) == split_holdout(items, wanted, seed)


@pytest.mark.parametrize(("count", "kept"), [(5, 0), (200, 20), (5000, 100)])
def test_a_tenth_or_a_hundred_are_held_out(count, kept):
    """Small files keep most of their lines for training."""
    train, held_out = split_holdout(chats(map(str, range(count))), None, 0)
    assert (len(train), len(held_out)) == (count - kept, kept)


def test_the_seed_decides_what_is_held_out():
    """Another seed asks other questions."""
    items = chats(map(str, range(100)))
    assert split_holdout(items, None, 1) != split_holdout(items, None, 2)


def test_holding_out_everything_is_refused():
    """Nothing would be left to learn; the message has both numbers."""
    with pytest.raises(InvalidInputError, match="holdout is 3, but there are only 3 conversations"):
        split_holdout(chats("abc"), 3, 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("rank", 0), ("learning_rate", -1), ("learning_rate", float("nan")), ("batch_size", True), ("holdout", -1),
     ("steps", 0), ("max_tokens", "9"), ("save_every", -1)],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(field, value):
    """The error names the field and shows the value."""
    with pytest.raises(InvalidInputError, match=rf"^{field} must be .* got {value!r}"):
        SFTSettings.for_model("m", **{"steps": 1, field: value})


def test_a_run_has_one_length():
    """Steps and epochs together, or neither, leave open how long it is."""
    for given_ in ({}, {"steps": 1, "epochs": 1}):
        with pytest.raises(InvalidInputError, match="either steps or epochs"):
            SFTSettings(base_model="m", **given_)


def test_defaults_come_from_the_table_of_the_model():
    """The built-in model has its own, under each of its names; what is given wins."""
    assert SFTSettings.for_model("tiny").learning_rate == DEFAULTS[TINY_NAME]["learning_rate"]
    assert SFTSettings.for_model("some/model").learning_rate == OTHER_DEFAULTS["learning_rate"]
    chosen = SFTSettings.for_model("tiny", epochs=2.0, rank=8, seed=None)
    assert (chosen.steps, chosen.epochs, chosen.rank, chosen.seed) == (None, 2.0, 8, 0)
