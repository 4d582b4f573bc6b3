"""The fused denoiser against the library's own U-Net, and its backward against numeric differentiation."""

import pytest
import torch
from denoising_diffusion_pytorch import Unet1D

from models.layers.denoiser import NormAct, make_denoiser


@pytest.mark.parametrize("length,multipliers", [(8, (1, 2)), (6, (1,)), (12, (1, 2, 2))])
def test_values_and_gradients_equal_the_library(length, multipliers):
    torch.manual_seed(0)
    library, ours = Unet1D(8, channels=5, dim_mults=multipliers), make_denoiser(8, 5, multipliers)
    ours.load_state_dict(library.state_dict(), strict=True)
    x, t = torch.randn(3, 5, length), torch.tensor([0, 4, 9])
    results = []
    for net in (library, ours):
        leaf = x.clone().requires_grad_()
        out = net(leaf, t)
        out.square().sum().backward()
        results.append([out, leaf.grad, *(p.grad for p in net.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 3])
def test_norm_act_gradient_is_the_numeric_one(rows):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, 5, generator=g, dtype=torch.double, requires_grad=True)
    weight, bias = (torch.randn(rows, 4, 1, generator=g, dtype=torch.double, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(NormAct.apply, (x, weight, bias))
