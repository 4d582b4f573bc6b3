"""ShaSpec (Wang et al., CVPR 2023): features shared by both modalities stand in for absent ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dataset.types import AUDIO, VISUAL
from models.features import Features, FeatureShape
from models.methods.base import Method, ViewMode, Views, simulate


@dataclass
class Encoded:
    """Shared r and specific s (B, T, D), visual as the mean over its tokens; f = r + W[r; s]."""

    shared_audio: Tensor
    shared_visual: Tensor
    specific_audio: Tensor
    specific_visual: Tensor
    fused_audio: Tensor                    # (B, T, D)
    fused_visual: Tensor                   # (B, T, N, D)


class ShaSpec(Method):
    """Shared-specific feature modelling of Wang et al., "Multi-modal Learning with Missing Modality
    via Shared-Specific Feature Modelling", CVPR 2023; numbers from the released code where it has
    them.

    Option: `views` (`simulate`).

    Fidelity:
    - one shared encoder, one specific encoder per modality, one residual fusion f = r + W[r; s] for
      both (the paper's method section; `DualNet_SS.py`). Present features are rewritten by it, so
      complete input is changed as well;
    - the encoders are two-layer perceptrons on every token where the original has 3-D convolutions
      on volumes: what comes from a backbone is encoded already, and its audio has no grid. W is a
      linear map for the same reason;
    - an absent modality is the shared feature of the present one (`DualNet_SS.py`). Audio takes the
      mean over the visual tokens of its segment, every visual token takes the audio of its segment:
      the grids differ. A segment without either gets the shared feature of a blank, as released;
    - 0.1 L1 between shared features and 0.02 cross entropy of a linear domain classifier
      (`loss_Dual.py`). Both count only segments where both modalities are real; the release also
      aligns real features with those of a blank;
    - of the ring of four modalities one pair is left; visual enters both terms as the mean over its
      tokens;
    - the layer norm before the encoders is ours: raw maps and encoded audio differ in scale, and
      one encoder reads both;
    - absence per whole modality: `views: keep_count` is the release's draw, `all` (Eq. 8) the rule
      of every row here; so there is no warm-up on complete input, and SGD with its schedule is left
      to the training (configs/recipe);
    - the negatives of a match loss pass the same fusion, or they would be told apart by their
      scale.
    """

    keeps_present = False
    loss_weights = {"align": 0.1, "domain": 0.02}

    def __init__(self, shape: FeatureShape, *, views: ViewMode = "all") -> None:
        super().__init__()
        D = shape.channels
        self.views_mode = views
        self.norm_audio, self.norm_visual = nn.LayerNorm(D), nn.LayerNorm(D)
        self.shared, self.specific_audio, self.specific_visual = perceptron(D), perceptron(D), perceptron(D)
        self.fusion = nn.Linear(2 * D, D)
        self.domain = nn.Linear(D, 2)                                  # logits in the order AUDIO, VISUAL

    def fill_in(self, features: Features) -> Features:
        return self.stand_in(features, self.encode(features), features.presence)

    def views(self, features: Features) -> Views:
        """All maps act on single tokens, so every view chooses from one encoding of the batch."""
        encoded = self.encode(features)
        if features.negative is not None:
            fused = self.fuse(features.negative, self.norm_visual, self.specific_visual)[2]
            features = features.with_(negative=fused.to(features.negative.dtype))
        states = simulate(features.presence, self.views_mode)
        whole = features.presence.all(dim=-1)                          # (B, T)
        losses = {"align": self.align_loss(encoded, whole), "domain": self.domain_loss(encoded, whole)}
        return Views({name: self.stand_in(features, encoded, state) for name, state in states.items()}, losses)

    def encode(self, features: Features) -> Encoded:
        r_audio, s_audio, f_audio = self.fuse(features.audio, self.norm_audio, self.specific_audio)
        r_visual, s_visual, f_visual = self.fuse(features.visual, self.norm_visual, self.specific_visual)
        return Encoded(r_audio, r_visual.mean(dim=2), s_audio, s_visual.mean(dim=2), f_audio, f_visual)

    def fuse(self, values: Tensor, norm: nn.Module, specific: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """Shared, specific and fused features of one modality, each (..., D) like `values`."""
        values = norm(values)
        r, s = self.shared(values), specific(values)
        return r, s, r + self.fusion(torch.cat([r, s], dim=-1))

    def stand_in(self, features: Features, encoded: Encoded, presence: Tensor) -> Features:
        """Fused features where `presence` (B, T, 2) is True, the other's shared ones elsewhere."""
        from_audio = encoded.shared_audio.unsqueeze(2)                 # (B, T, 1, D), the same for every token
        audio = torch.where(presence[..., AUDIO, None], encoded.fused_audio, encoded.shared_visual)
        visual = torch.where(presence[..., VISUAL, None, None], encoded.fused_visual, from_audio)
        audio, visual = audio.to(features.audio.dtype), visual.to(features.visual.dtype)
        return features.with_(presence=presence, audio=audio, visual=visual)

    def align_loss(self, encoded: Encoded, whole: Tensor) -> Tensor:
        """Mean absolute difference of the shared features over the segments `whole` (B, T)."""
        difference = (encoded.shared_audio.float() - encoded.shared_visual.float()).abs().mean(dim=-1)   # (B, T)
        return torch.where(whole, difference, 0.0).sum() / whole.sum().clamp_min(1)

    def domain_loss(self, encoded: Encoded, whole: Tensor) -> Tensor:
        """Cross entropy of naming the modality from its specific features, pooled over the segments
        `whole` (B, T); questions without one do not count.
        """
        counts = whole.sum(dim=1)                                      # (B,)
        specific = torch.stack([encoded.specific_audio, encoded.specific_visual]).float()          # (2, B, T, D)
        pooled = torch.where(whole[..., None], specific, 0.0).sum(dim=2) / counts.clamp_min(1)[:, None]
        logits = self.domain(pooled).float()                           # (2, B, 2)
        target = torch.arange(2, device=logits.device)[:, None].expand(-1, len(counts))            # AUDIO, then VISUAL
        loss = F.cross_entropy(logits.transpose(1, 2), target, reduction="none")                   # (2, B)
        return (loss * (counts > 0)).sum() / (2 * (counts > 0).sum()).clamp_min(1)


def perceptron(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels))
