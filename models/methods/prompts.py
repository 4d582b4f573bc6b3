"""Missing-aware prompts (Lee et al., CVPR 2023): a frozen backbone reads learned tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dataset.types import AUDIO, VISUAL
from models.features import Features, FeatureShape, blank_features
from models.methods.base import Method, ViewMode, Views, simulate, without_match

TOKENS = 16                              # P, of each prompt
FIRST_ONES = (0, 2, 1)                   # the row of ones of each case: complete, audio, visual missing


class MissingAwarePrompts(Method):
    """Lee et al., "Multimodal Prompting with Missing Modalities for Visual Recognition", CVPR 2023;
    numbers from the released code.

    Each of the three cases (complete, audio missing, visual missing) has prompts for each stream,
    which whatever attends to that stream reads beside its segments, as keys and as values (the
    original's input level). Option: `views` (`simulate`).

    Fidelity:
    - 16 tokens per case, zeros with one row of ones that differs by case (0 / 2 / 1, the text's
      index for audio; `vilt_missing_aware_prompt_module.py`). Rows that start alike have alike
      gradients: the dropout of the backbone's attention alone sets them apart;
    - prompts, the backbone's combination layers and the answer layer are trained, the counterpart
      of the original's prompts, pooler and classifier. As there, the frozen part stays in training
      mode, so its dropout is active;
    - the original prompts six layers of one transformer over both modalities. Here each stream has
      its own prompts, and every attention to that stream reads the same ones, since a backbone has
      one such layer or a few;
    - prompts enter before the projection of keys and values, which is frozen;
    - an absent modality is masked out, so that prompts alone are attended; the original feeds an
      empty text or a blank image. A mean over a stream runs over what is there, never over prompts;
    - a stream that lacks some segments only reads the prompts of that case, and so does the other
      one, with the segments masked; if both lack something each reads those of its own case (the
      original removes whole modalities and never both);
    - task loss; the backbone's own losses stay, as for every method, and can train only what is not
      frozen;
    - `views: sampled` draws the case uniformly as the original does on complete data; `all` (Eq. 8)
      is the rule of every row here;
    - the original's learning rate of 1e-2 with AdamW and warm-up is left to the training, which is
      one for all methods and has one rate for all parameters.
    """

    needs_trained_backbone = True

    def __init__(self, shape: FeatureShape, *, views: ViewMode = "all") -> None:
        super().__init__()
        self.views_mode = views
        self.prompts = nn.Parameter(first_prompts(shape.channels))     # (2, 3, P, D)

    def adapt(self, backbone: nn.Module, combination: list[nn.Module]) -> None:
        backbone.requires_grad_(False)
        for layer in combination:
            layer.requires_grad_(True)

    def fill_in(self, features: Features) -> Features:
        return self.prompted(features, features.presence)

    def views(self, features: Features) -> Views:
        states = simulate(features.presence, self.views_mode)
        return Views({name: self.prompted(features, state) for name, state in states.items()})

    def prompted(self, features: Features, presence: Tensor) -> Features:
        """`features` of which only `presence` may be read, beside the prompts of its case."""
        features = without_match(blank_features(features, presence)).with_(filled=False)
        audio, visual = (self.prompts[m, case] for m, case in enumerate(cases(presence)))      # (B, P, D) each
        return features.with_(audio_keys=audio, audio_values=audio, visual_keys=visual, visual_values=visual)


def cases(presence: Tensor) -> tuple[Tensor, Tensor]:
    """Which prompts both streams read, (B,) each: 0 complete, 1 audio, 2 visual missing.

    A modality is missing as soon as one segment of `presence` (B, T, 2) lacks it. Where both are,
    each stream reads the prompts of its own absence.
    """
    lacks_audio, lacks_visual = (~presence[..., AUDIO]).any(dim=1), (~presence[..., VISUAL]).any(dim=1)
    audio_missing, visual_missing = lacks_audio.long(), 2 * lacks_visual.long()                # 0 where present
    return (torch.where(lacks_audio, audio_missing, visual_missing),
            torch.where(lacks_visual, visual_missing, audio_missing))


def first_prompts(channels: int) -> Tensor:
    """Prompts (2, 3, P, D) by stream and case: zeros, but for one row of ones in each."""
    prompts = torch.zeros(2, len(FIRST_ONES), TOKENS, channels)
    for case, row in enumerate(FIRST_ONES):
        prompts[:, case, row] = 1
    return prompts
