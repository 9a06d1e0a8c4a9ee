"""The models themselves: training and sampling with PyTorch, behind the small interface in :mod:`.base`.

::

    base.py       what the server needs of an engine
    checks.py     refuses what can never run; needs no torch
    losses.py     the losses of the API in one table
    graphs.py     a client's own loss, as a graph · operations.py what it may call
    objectives.py both kinds of losses in one form
    torch_hf.py   the engine: models, samplers, one call at a time
    bases.py      a base model and the adapters inside it
    training.py   micro-batches, loss, gradient
    adamw.py      the optimizer
    checkpoint.py an adapter as files
    sampling.py   a batch of rows, token by token
    drawing.py    one token from the logits · stops.py when to end · cache.py keys and values
"""
