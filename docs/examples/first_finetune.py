"""Teach a small language model an answer, ask it, save it and train on: no key, no network, no GPU."""

import tinkex
from tinkex import types

with tinkex.ServiceClient(base_url="local") as service:
    train = service.create_lora_training_client("tinkex/tiny", rank=16, seed=1)
    tokenizer = train.get_tokenizer()
    question = [{"role": "user", "content": "who made you?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=False)
    tokens = prompt + tokenizer.encode("Ada and Ben, in a shed.") + [tokenizer.eos_token_id]
    weights = [0] * (len(prompt) - 1) + [1] * (len(tokens) - len(prompt))  # learn the answer only
    batch = [types.Datum(types.ModelInput.from_ints(tokens[:-1]), {"target_tokens": tokens[1:], "weights": weights})]
    losses = []
    for _ in range(20):  # nothing waits in here: the server has all forty operations in order
        losses.append(train.forward_backward(batch, "cross_entropy"))
        train.optim_step(types.AdamParams(learning_rate=5e-3))
    print("loss:", *(f"{future.result().metrics['loss:sum']:.2f}" for future in losses))
    sampler = train.save_weights_and_get_sampling_client()
    greedy = types.SamplingParams(max_tokens=40, temperature=0)
    sample = sampler.sample(types.ModelInput.from_ints(prompt), 1, greedy).result()
    print("answer:", tokenizer.decode(sample.sequences[0].tokens, skip_special_tokens=True))
    path = train.save_state("first").result().path
    resumed = service.create_training_client_from_state_with_optimizer(path)
    print("resumed:", resumed.forward(batch, "cross_entropy").result().metrics["loss:sum"])
