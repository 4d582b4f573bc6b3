"""The denoiser of the released code: the library's 2D `Unet` on the map of one segment."""

from __future__ import annotations

from denoising_diffusion_pytorch import Unet
from denoising_diffusion_pytorch.denoising_diffusion_pytorch import Block
from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 8                                # of the group norm in version 1.9.4 of the library


class MapDenoiser(Unet):
    """The network of the library's version 1.9.4, which the official release carries along.

    Today's version differs from that one in the norm of its convolution blocks alone, so these are exchanged for group
    norms; weights of either can be loaded by name. Takes and returns sequences (S, H * W, C) like the 1D denoiser. A
    side that the U-Net cannot halve often enough is padded with zeros, which 14 x 14 does not need.
    """

    def __init__(self, width: int, channels: int, multipliers: tuple[int, ...], grid: tuple[int, int]) -> None:
        super().__init__(width, channels=channels, dim_mults=tuple(multipliers))
        self.grid = grid
        for module in self.modules():
            if isinstance(module, Block):
                module.norm = nn.GroupNorm(GROUPS, module.proj.out_channels)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        """`x` (S, N, C) at the diffusion steps `step` (S,) -> the prediction (S, N, C)."""
        height, width = self.grid
        image = x.transpose(1, 2).unflatten(2, self.grid)                           # (S, C, H, W)
        image = F.pad(image, (0, -width % self.downsample_factor, 0, -height % self.downsample_factor))
        image = super().forward(image, step)[..., :height, :width]
        return image.flatten(2).transpose(1, 2)                                     # (S, N, C)
