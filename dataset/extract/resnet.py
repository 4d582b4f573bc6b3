"""ResNet-18 maps (He et al., CVPR 2016; torchvision, ImageNet weights) by the recipe of MUSIC-AVQA.

224 x 224 without crop, the mean and deviation of the Kinetics models (as the official script has
it, not ImageNet's), and a last stage of stride 1 instead of 2 with its weights unchanged: (512, 14,
14) per frame, after ReLU.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import ResNet, ResNet18_Weights, resnet18

from dataset.extract.media import Clip
from dataset.extract.weights import Source, load_weights

MEAN, DEVIATION = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)


def maps_network(network: ResNet) -> nn.Sequential:
    """A ResNet up to its last map, whose stage has stride 1."""
    first = network.layer4[0]
    first.conv1.stride = first.downsample[0].stride = (1, 1)
    return nn.Sequential(*list(network.children())[:-2])


def normalised(frames: np.ndarray, device: torch.device, mean=MEAN, deviation=DEVIATION) -> Tensor:
    """(n, 224, 224, 3) uint8 -> (n, 3, 224, 224) float."""
    pixels = torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).float() / 255
    return (pixels - pixels.new_tensor(mean).view(3, 1, 1)) / pixels.new_tensor(deviation).view(3, 1, 1)


class ResNetMaps:
    """Frames of a clip to `res18_14x14` rows."""

    folder, modality, shape = "res18_14x14", "visual", (512, 14, 14)

    def __init__(self, weights: Source, device: torch.device, batch_size: int = 32) -> None:
        """`weights`: torchvision's resnet18 state dict, None to download it, or RANDOM."""
        self.device, self.batch_size = device, batch_size
        network = load_weights(resnet18(), weights, ResNet18_Weights.IMAGENET1K_V1.url)
        self.network = maps_network(network).to(device).eval()

    @torch.inference_mode()
    def __call__(self, clip: Clip) -> np.ndarray:
        """(n, 512, 14, 14) float32, a row per present second."""
        parts = [clip.frames[i:i + self.batch_size] for i in range(0, len(clip.frames), self.batch_size)]
        return np.concatenate([self.network(normalised(p, self.device)).cpu().numpy() for p in parts])
