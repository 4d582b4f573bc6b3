"""VGGish (Hershey et al., ICASSP 2017) as MUSIC-AVQA uses it: one 128-d vector per whole second,
after the last ReLU.

Recipe of the official feature script: 16 kHz mono, STFT of 25 ms periodic Hann windows every 10 ms
(FFT 512), 64 HTK mel bands from 125 to 7500 Hz, log(mel + 0.01), the first 96 of a second's 98
frames; no PCA and no quantisation.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

from dataset.extract.media import SAMPLE_RATE, Clip
from dataset.extract.weights import Source, load_weights

WINDOW, HOP, FFT, BANDS, FRAMES = 400, 160, 512, 64, 96
URL = "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth"


@cache
def mel_matrix() -> Tensor:
    """(257, 64): triangles on the mel axis, as in the AudioSet front end."""
    return torch.from_numpy(mel_filter_bank(
        FFT // 2 + 1, BANDS, 125.0, 7500.0, SAMPLE_RATE, norm=None, mel_scale="htk", triangularize_in_mel_space=True,
    )).float()


def log_mel(sound: Tensor) -> Tensor:
    """`sound` (n, 16000) in [-1, 1] -> (n, 96, 64)."""
    frames = sound.unfold(-1, WINDOW, HOP)[:, :FRAMES]                             # (n, 96, 400)
    window = torch.hann_window(WINDOW, periodic=True, device=sound.device)
    magnitude = torch.fft.rfft(frames * window, n=FFT).abs()                       # (n, 96, 257)
    return torch.log(magnitude @ mel_matrix().to(sound.device) + 0.01)             # (n, 96, 64)


class VGGish(nn.Module):
    """The published network; parameter names are those of the PyTorch port `torchvggish`."""

    def __init__(self) -> None:
        super().__init__()
        layers, channels = [], 1
        for out in (64, None, 128, None, 256, 256, None, 512, 512, None):
            if out is None:
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU(inplace=True)]
                channels = out
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(512 * 6 * 4, 4096), nn.ReLU(inplace=True), nn.Linear(4096, 4096), nn.ReLU(inplace=True),
            nn.Linear(4096, 128), nn.ReLU(inplace=True),
        )

    def forward(self, examples: Tensor) -> Tensor:
        """`examples` (n, 96, 64) -> (n, 128), non-negative."""
        maps = self.features(examples.unsqueeze(1))                                # (n, 512, 6, 4)
        return self.embeddings(maps.permute(0, 2, 3, 1).flatten(1))                # channels last, as trained


class VGGishFeatures:
    """Sound of a clip to `vggish` rows."""

    folder, modality, shape = "vggish", "audio", (128,)

    def __init__(self, weights: Source, device: torch.device, batch_size: int = 60) -> None:
        self.device, self.batch_size = device, batch_size
        self.network = load_weights(VGGish(), weights, URL).to(device).eval()

    @torch.inference_mode()
    def __call__(self, clip: Clip) -> np.ndarray:
        """(m, 128) float32, a row per present second."""
        parts = torch.from_numpy(clip.sound).split(self.batch_size)
        return np.concatenate([self.network(log_mel(p.to(self.device))).cpu().numpy() for p in parts])
