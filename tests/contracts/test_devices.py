"""Train, evaluate and resume off the CPU: on an emulated device, and on a GPU if there is one.

Every method with one backbone, every backbone with a method of each kind; on a GPU every pair.
"""

import pytest
import torch
from contracts.pairs import CASES, EACH, PARAMS, answer, build, poison, with_absence
from emulated import DEVICE, WrongDevice, emulation
from toy import random_batch, unweighted

pytestmark = pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter")

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
every_pair = pytest.mark.parametrize("pair", PARAMS)


def to(batch, device):
    return batch.map(lambda value: value.to(device))


def host(values: dict) -> dict:
    """A state dict on the CPU, as a checkpoint is read."""
    return torch.utils._pytree.tree_map(lambda v: v.to("cpu", copy=True) if isinstance(v, torch.Tensor) else v,
                                       values)


class Training:
    """A model with its optimiser on `device`, after one step or from what another `saved`."""

    def __init__(self, pair, device, saved=None):
        self.pair, self.device, self.model = pair, device, build(pair).to(device)
        self.optimiser = torch.optim.SGD([p for p in self.model.parameters() if p.requires_grad], lr=0.01, momentum=0.9)
        if saved is None:
            self.step(random_batch(5))
        else:
            self.model.load_state_dict(saved[0])
            self.optimiser.load_state_dict(saved[1])

    def step(self, batch):
        torch.manual_seed(1)
        loss = unweighted(self.model.train(), to(batch, self.device))
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()

    def saved(self):
        return host(self.model.state_dict()), host(self.optimiser.state_dict())

    def resumed(self):
        """A new model and optimiser that go on from here."""
        return Training(self.pair, self.device, self.saved())

    def ended(self) -> tuple[torch.Tensor, dict]:
        """Logits with absence, and weights, after a second step."""
        self.step(with_absence("mixed"))
        return answer(self.model, to(with_absence("mixed"), self.device)).to("cpu"), self.saved()[0]


@pytest.mark.parametrize("pair", EACH)
def test_no_tensor_is_made_on_the_wrong_device(pair):
    """The emulated device refuses to mix; resumed on it or on the CPU is as never interrupted."""
    first = Training(pair, "cpu")
    resumed, expected = first.resumed().ended(), first.ended()
    torch.testing.assert_close(resumed, expected, atol=0, rtol=0)
    with emulation():
        on_device = Training(pair, DEVICE).resumed().ended()
    torch.testing.assert_close(on_device, expected, atol=1e-4, rtol=1e-3)


def test_the_emulated_device_refuses_to_mix():
    with emulation():
        on_device = torch.ones(3, device=DEVICE)
        assert (2 * on_device + torch.tensor([1.0, 2, 3], device=DEVICE)).tolist() == [3, 4, 5]
        for wrong in (lambda: on_device + torch.ones(3), lambda: torch.cat([torch.ones(3), on_device]),
                      lambda: torch.where(torch.ones(3) > 0, on_device, 0.0)):
            with pytest.raises(WrongDevice, match="of the CPU meets one of the device"):
                wrong()
        assert (on_device.to("cpu") + torch.ones(3)).tolist() == [2, 2, 2]


@cuda
@every_pair
def test_two_bf16_steps_with_a_resume_on_a_gpu(pair):
    with torch.autocast("cuda", dtype=torch.bfloat16):
        logits, weights = Training(pair, "cuda").resumed().ended()
    assert torch.isfinite(logits).all() and all(torch.isfinite(value.float()).all() for value in weights.values())


@cuda
@every_pair
def test_law_l1_on_a_gpu(pair):
    """No absent value reaches the logits."""
    model = build(pair).to("cuda")
    for case in CASES[1:]:
        batch = with_absence(case)
        blank, poisoned = (answer(model, to(poison(batch, value), "cuda")) for value in (0.0, float("nan")))
        assert torch.equal(blank, poisoned), case
