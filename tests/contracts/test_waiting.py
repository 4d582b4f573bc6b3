"""Nothing in a training step waits for the device: no branch is decided by a tensor's value."""

import pytest
import torch
from contracts.pairs import EACH, build
from torch.utils._python_dispatch import TorchDispatchMode
from toy import random_batch, unweighted

WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::is_nonzero", "aten::equal",
         "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive", "aten::repeat_interleave"}


class NoWaiting(TorchDispatchMode):
    """Refuses what a GPU would have to be waited for: values on the host, shapes from values."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name
        chosen = args[1] if name in ("aten::index", "aten::index_put", "aten::index_put_") else []
        sized = kwargs and kwargs.get("output_size") is not None             # of repeat_interleave: known beforehand
        if name in WAITS and not sized or any(index is not None and index.dtype == torch.bool for index in chosen):
            raise AssertionError(f"{name} waits for the device")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("pair", EACH)
def test_a_training_step_waits_for_nothing(pair):
    model, batch = build(pair).train(), random_batch(4)
    batch.presence[0, 0, 0] = False
    with NoWaiting():
        unweighted(model, batch).backward()


@pytest.mark.parametrize("wait", [
    lambda x: bool(x.any()), lambda x: x.sum().item(), lambda x: int(x[0]), lambda x: x[x > 0], lambda x: x.nonzero(),
    lambda x: torch.where(x > 0), lambda x: x.masked_select(x > 0), lambda x: torch.equal(x, x), lambda x: x.unique(),
    lambda x: x.unique(dim=0), lambda x: x.unique_consecutive(), lambda x: x.repeat_interleave(x),
    lambda x: x.clone().index_put_((x > 0,), x[0]), lambda x: x.index_put((x > 0,), x[0]),
])
def test_what_waits_is_caught(wait):
    with pytest.raises(AssertionError, match="waits for the device"), NoWaiting():
        wait(torch.arange(3))


def test_what_does_not_wait_passes():
    x = torch.arange(3)
    with NoWaiting():
        assert len(x[[0, 2]] + torch.where(x > 0, x, 1)[1:]) == 2 and len(x.repeat_interleave(x, output_size=3)) == 3
