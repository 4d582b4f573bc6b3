"""ActionMAE (Woo et al., AAAI 2023): a masked autoencoder predicts absent modality tokens."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dataset.types import AUDIO, VISUAL
from models.errors import OptionError
from models.features import Features, FeatureShape
from models.methods.base import Method, ViewMode, Views, simulate

MEMORY, LAYERS, HEADS = 4, 2, 8          # tokens; of the encoder and of the decoder, as released


class ActionMAE(Method):
    """Woo et al., "Towards Good Practices for Missing Modality Robust Action Recognition", AAAI
    2023; numbers from the released code.

    Option: `views` (`simulate`). Its label smoothing of 0.1 is `train.label_smoothing`, set by
    configs/method/actionmae.yaml.

    Fidelity:
    - encoder on memory and kept tokens, mask tokens for the rest, decoder, linear head, MSE of
      weight 1 on the removed tokens only (`actionmae.py`); pre-norm layers with GELU and a fourfold
      hidden width (`transformer_block.py`). A removed token is masked as a key instead of cut out,
      which is the same and allows any presence in a batch;
    - one token per modality and segment, visual as the mean over its map, where the original has
      one per modality and clip: the backbones need segments. The prediction is broadcast over the
      map;
    - modality embedding and sinusoidal time are added before both networks. The release computes
      positions and never adds them, so that its mask tokens are all equal;
    - the decoder always runs and memory tokens are always removed; the release hands over memory
      tokens where nothing was dropped;
    - real features stay as they are; the release answers on predictions throughout;
    - targets are not standardised, since predictions stand beside real features; the release does.
      They are detached, or features would shrink to be predictable; the release does not;
    - tokens are normalised per modality: raw maps and encoded audio differ in scale;
    - `views: keep_count` is the release's draw, per question and not per batch; `all` (Eq. 8) the
      rule of every row;
    - AdamW and its schedule are left to the training (configs/recipe has them);
    - the question does not enter the reconstruction, as in the original.
    """

    loss_weights = {"reconstruction": 1.0}

    def __init__(self, shape: FeatureShape, *, views: ViewMode = "all") -> None:
        super().__init__()
        D = shape.channels
        if D % HEADS:
            raise OptionError(f"method=actionmae has {HEADS} heads, which must divide the {D} channels of the features")
        self.views_mode = views
        self.norm_audio, self.norm_visual = nn.LayerNorm(D), nn.LayerNorm(D)
        self.memory = nn.Parameter(torch.randn(MEMORY, D) * 0.02)
        self.mask = nn.Parameter(torch.randn(D) * 0.02)
        self.modality = nn.Parameter(torch.randn(2, D) * 0.02)         # rows AUDIO, VISUAL
        self.register_buffer("time", sinusoids(shape.segments, D), persistent=False)
        self.encoder, self.decoder = transformer(D), transformer(D)
        self.head = nn.Linear(D, D)

    def fill_in(self, features: Features) -> Features:
        return self.stand_in(features, self.predict(tokens(features), features.presence), features.presence)

    def views(self, features: Features) -> Views:
        """All states pass the autoencoder as one batch; the loss is on what they took away."""
        presence = features.presence
        states = simulate(presence, self.views_mode)
        count, kept = len(states), torch.cat(list(states.values()))    # (count * B, T, 2)
        real = tokens(features).repeat(count, 1, 1, 1)                 # (count * B, T, 2, D)
        predicted = self.predict(real, kept)
        loss = self.loss(predicted, real, presence.repeat(count, 1, 1) & ~kept)
        views = {
            name: self.stand_in(features, part, state)
            for (name, state), part in zip(states.items(), predicted.split(len(presence)), strict=True)
        }
        return Views(views, {"reconstruction": loss})

    def predict(self, x: Tensor, presence: Tensor) -> Tensor:
        """Every token (B, T, 2, D) from those of `x` that `presence` (B, T, 2) marks present."""
        B, T, _ = presence.shape
        place = self.time.unsqueeze(1) + self.modality                 # (T, 2, D)
        x = torch.stack([self.norm_audio(x[..., AUDIO, :]), self.norm_visual(x[..., VISUAL, :])], dim=2) + place
        memory = self.memory.to(x.dtype).expand(B, -1, -1)             # (B, M, D)
        count = memory.shape[1]
        absent = torch.cat([presence.new_zeros(B, count), ~presence.flatten(1)], dim=1)        # (B, M + 2T)
        y = self.encoder(torch.cat([memory, x.flatten(1, 2)], dim=1), src_key_padding_mask=absent)
        encoded = y[:, count:].unflatten(1, (T, 2))                    # (B, T, 2, D)
        encoded = torch.where(presence.unsqueeze(-1), encoded, self.mask.to(y.dtype)) + place
        y = self.decoder(torch.cat([y[:, :count], encoded.flatten(1, 2)], dim=1))
        return self.head(y[:, count:]).unflatten(1, (T, 2))

    def stand_in(self, features: Features, predicted: Tensor, presence: Tensor) -> Features:
        """Predictions where `presence` (B, T, 2) is False; visual over its whole map."""
        audio = predicted[..., AUDIO, :].to(features.audio.dtype)      # (B, T, D)
        visual = predicted[..., VISUAL, :].to(features.visual.dtype).unsqueeze(2)              # (B, T, 1, D)
        return features.with_(
            presence=presence,
            audio=torch.where(presence[..., AUDIO, None], features.audio, audio),
            visual=torch.where(presence[..., VISUAL, None, None], features.visual, visual),
        )

    def loss(self, predicted: Tensor, target: Tensor, removed: Tensor) -> Tensor:
        """Mean squared error of the tokens (B, T, 2, D) that `removed` (B, T, 2) selects."""
        error = (predicted.float() - target.float().detach()).square().mean(dim=-1)            # (B, T, 2)
        return torch.where(removed, error, 0.0).sum() / removed.sum().clamp_min(1)


def tokens(features: Features) -> Tensor:
    """One token per segment and modality, (B, T, 2, D); visual as the mean over its map."""
    visual = features.visual.mean(dim=2)                               # (B, T, D)
    return torch.stack([features.audio.to(visual.dtype), visual], dim=2)


def transformer(channels: int) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        channels, HEADS, 4 * channels, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, LAYERS, norm=nn.LayerNorm(channels), enable_nested_tensor=False)


def sinusoids(length: int, channels: int) -> Tensor:
    """The fixed time embedding of Vaswani et al. (2017), (length, channels)."""
    pairs = math.ceil(channels / 2)
    rate = torch.exp(torch.arange(pairs) * (-math.log(10000.0) / pairs))
    angle = torch.arange(length)[:, None] * rate                       # (length, pairs)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :channels]
