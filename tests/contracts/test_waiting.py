"""Nothing in a training step waits for the device: no branch is decided by a tensor's value."""

import pytest
import torch
from contracts.pairs import PARAMS, build
from torch.utils._python_dispatch import TorchDispatchMode
from toy import random_batch, unweighted

WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::is_nonzero"}


class NoWaiting(TorchDispatchMode):
    """Refuses what a GPU would have to be waited for: values on the host, shapes from values."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name
        chosen = args[1] if name in ("aten::index", "aten::index_put_") else []
        if name in WAITS or any(index is not None and index.dtype == torch.bool for index in chosen):
            raise AssertionError(f"{name} waits for the device")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("pair", PARAMS)
def test_a_training_step_waits_for_nothing(pair):
    model, batch = build(pair).train(), random_batch(4)
    batch.presence[0, 0, 0] = False
    with NoWaiting():
        unweighted(model, batch).backward()
