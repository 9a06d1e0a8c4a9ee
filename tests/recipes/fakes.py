"""A tokenizer, a server and clients made of plain objects; they keep a record of what they were asked."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace

END, USER, ASSISTANT, SYSTEM = 1, 2, 3, 4
NAMES = {END: "<end>", USER: "<user>", ASSISTANT: "<assistant>", SYSTEM: "<system>"}


class FakeTokenizer:
    """One token per character, and one for each marker of a turn."""

    chat_template = "yes"
    all_special_ids = tuple(NAMES)

    def __init__(self, after_end=""):
        self.after_end = after_end

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        assert not tokenize
        turns = [f"<{m['role']}>{m['content']}<end>{self.after_end}" for m in messages]
        return "".join(turns) + ("<assistant>" if add_generation_prompt else "")

    def encode(self, text, add_special_tokens=True, verbose=True):
        ids = []
        while text:
            found = next((i for i, name in NAMES.items() if text.startswith(name)), None)
            ids.append(ord(text[0]) + 10 if found is None else found)
            text = text[len(NAMES[found]) if found else 1 :]
        return ids

    def decode(self, tokens, skip_special_tokens=False):
        return "".join(chr(t - 10) if t not in NAMES else "" if skip_special_tokens else NAMES[t] for t in tokens)


def done(value):
    """Return a future that has its result."""
    future = Future()
    future.set_result(value)
    return future


class FakeSampler:
    """Answers a prompt with what it knows, else with a question mark."""

    def __init__(self, knows, log):
        self.knows = knows
        self.log = log
        self.tokenizer = FakeTokenizer()

    def get_tokenizer(self):
        return self.tokenizer

    def sample(self, prompt, num_samples, sampling_params):
        self.log.append(("sample", prompt.to_ints(), sampling_params))
        asked = self.tokenizer.decode(prompt.to_ints()).split("<user>")[-1].split("<end>")[0]
        said = self.tokenizer.encode(self.knows.get(asked, "?"), add_special_tokens=False)
        sequence = SimpleNamespace(tokens=[*said, END])
        return done(SimpleNamespace(sequences=[sequence] * num_samples))


class FakeTrainer:
    """Counts its steps; the loss of step n is 8 / n for each learned token. Futures wait until they are asked."""

    def __init__(self, service, model_id, steps=0):
        self.service = service
        self.model_id = model_id
        self.steps = steps
        self.asked = steps

    def forward_backward(self, data, loss_fn, loss_fn_config=None):
        self.service.log.append(("forward_backward", [d.model_input.to_ints() for d in data], loss_fn))
        if self.service.fail_at is not None and self.steps >= self.service.fail_at:
            future = Future()
            future.set_exception(self.service.failure)
            return future
        weight = sum(sum(d.loss_fn_inputs["weights"].tolist()) for d in data)
        return done(SimpleNamespace(metrics={"loss:sum": weight * 8 / (self.steps + 1)}))

    def optim_step(self, params):
        self.service.log.append(("optim_step", params.learning_rate))
        self.steps += 1
        return done(SimpleNamespace(metrics=None))

    def _save(self, kind, name):
        path = f"tinker://{self.model_id}/{kind}/{name}"
        self.service.checkpoints[path] = self.steps
        self.service.log.append(("save", path))
        return done(SimpleNamespace(path=path))

    def save_state(self, name):
        return self._save("weights", name)

    def save_weights_for_sampler(self, name):
        return self._save("sampler_weights", name)


class FakeService:
    """A server that offers one model; after ``good_after`` steps its samples are right."""

    def __init__(self, knows=None, models=(("fake/model", 64),), good_after=0):
        self.knows = knows or {}
        self.good_after = good_after
        self.models = models
        self.log = []
        self.checkpoints = {}
        self.created = 0
        self.fail_at = None
        self.failure = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.log.append(("close",))

    def get_server_capabilities(self):
        models = [SimpleNamespace(model_name=n, max_context_length=c) for n, c in self.models]
        return SimpleNamespace(supported_models=models)

    def create_sampling_client(self, model_path=None, base_model=None):
        self.log.append(("sampler", model_path, base_model))
        good = model_path is not None and self.checkpoints[model_path] > self.good_after
        return FakeSampler(self.knows if good else {}, self.log)

    def create_lora_training_client(self, base_model, rank, seed):
        self.created += 1
        self.log.append(("create", base_model, rank, seed))
        return FakeTrainer(self, f"model-{self.created}")

    def create_training_client_from_state_with_optimizer(self, path):
        self.created += 1
        self.log.append(("load", path))
        return FakeTrainer(self, f"model-{self.created}", self.checkpoints[path])

    def calls(self, name):
        """Return the logged calls of a kind, without the kind."""
        return [entry[1:] for entry in self.log if entry[0] == name]
