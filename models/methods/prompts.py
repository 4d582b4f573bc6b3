"""Missing-aware prompts (Lee et al., CVPR 2023): a frozen backbone reads tokens learned for what is
missing.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dataset.types import AUDIO, VISUAL
from models.errors import OptionError
from models.features import Features, FeatureShape, blank_features
from models.methods.base import Method, ViewMode, Views, simulate, without_match

FIRST_ONES = (0, 2, 1)                   # the row of ones of each case at the start: complete, audio, visual missing


class MissingAwarePrompts(Method):
    """Lee et al., "Multimodal Prompting with Missing Modalities for Visual Recognition", CVPR 2023;
    numbers from the released code.

    Each of the three cases (complete, audio missing, visual missing) has prompts for each stream,
    which whatever attends to that stream reads beside its segments. Options: `views` (`simulate`);
    `tokens` per prompt, 0 for none, the control that tells what prompts add; `level`: a token is
    key and value (`input`), or half of the tokens are keys and half are values (`attention`);
    `finetune` the prompts with the layers around the answer, or `all`.

    Fidelity:
    - 16 tokens per case, zeros with one row of ones that differs by case (0 / 2 / 1, the text's
      index for audio); at the attention level one such row in the keys and one in the values
      (`vilt_missing_aware_prompt_module.py`). Rows that start alike have alike gradients: the
      dropout of the backbone's attention alone sets them apart;
    - prompts, the backbone's combination layers and the answer layer are trained, the counterpart
      of the original's prompts, pooler and classifier. As there, the frozen part stays in training
      mode, so its dropout is active;
    - the original prompts six layers of one transformer over both modalities. Here each stream has
      its own prompts, and every attention to that stream reads the same ones, since a backbone has
      one such layer or a few;
    - prompts enter before the projection of keys and values, at the attention level too, where the
      original adds them behind it: a backbone's attention is its own, and its projections are
      frozen;
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

    def __init__(
        self,
        shape: FeatureShape,
        *,
        views: ViewMode = "all",
        tokens: Annotated[int, Field(ge=0)] = 16,
        level: Literal["input", "attention"] = "input",
        finetune: Literal["prompts", "all"] = "prompts",
    ) -> None:
        super().__init__()
        if level == "attention" and tokens % 2:
            raise OptionError(f"method.tokens={tokens} must be even with method.level=attention: half of them are keys, "
                             "half are values")
        self.views_mode = views
        self.level = level
        self.finetune = finetune
        self.needs_trained_backbone = finetune == "prompts"
        self.prompts = nn.Parameter(first_prompts(tokens, 2 if level == "attention" else 1, shape.channels))

    def adapt(self, backbone: nn.Module, combination: list[nn.Module]) -> None:
        if self.finetune == "all":
            return
        backbone.requires_grad_(False)
        for layer in combination:
            layer.requires_grad_(True)

    def complete(self, features: Features, presence: Tensor) -> Features:
        return self.prompted(features, presence)

    def views(self, features: Features, presence: Tensor) -> Views:
        states = simulate(presence, self.views_mode)
        return Views({name: self.prompted(features, state) for name, state in states.items()})

    def prompted(self, features: Features, presence: Tensor) -> Features:
        """`features` of which only `presence` (B, T, 2) may be read, beside the prompts of each
        question's case.
        """
        features = without_match(blank_features(features, presence)).with_(filled=False)
        if self.prompts.shape[2] == 0:
            return features
        audio, visual = (self.prompts[m, case] for m, case in enumerate(cases(presence)))      # (B, P, D) each
        if self.level == "input":
            return features.with_(audio_keys=audio, audio_values=audio, visual_keys=visual, visual_values=visual)
        (audio_keys, audio_values), (visual_keys, visual_values) = audio.chunk(2, dim=1), visual.chunk(2, dim=1)
        return features.with_(audio_keys=audio_keys, audio_values=audio_values,                # (B, P/2, D)
                              visual_keys=visual_keys, visual_values=visual_values)


def cases(presence: Tensor) -> tuple[Tensor, Tensor]:
    """Which prompts the audio and the visual stream read, (B,) each: 0 complete, 1 audio, 2 visual
    missing.

    A modality is missing as soon as one segment of `presence` (B, T, 2) lacks it. Where both are,
    each stream reads the prompts of its own absence.
    """
    lacks_audio, lacks_visual = (~presence[..., AUDIO]).any(dim=1), (~presence[..., VISUAL]).any(dim=1)
    audio_missing, visual_missing = lacks_audio.long(), 2 * lacks_visual.long()                # 0 where present
    return (torch.where(lacks_audio, audio_missing, visual_missing),
            torch.where(lacks_visual, visual_missing, audio_missing))


def first_prompts(tokens: int, parts: int, channels: int) -> Tensor:
    """Prompts (2, 3, P, D) by stream and case: zeros, but for one row of ones in each of the
    `parts` of P tokens.
    """
    prompts = torch.zeros(2, len(FIRST_ONES), parts, tokens // parts, channels)
    if tokens:
        for case, row in enumerate(FIRST_ONES):
            prompts[:, case, :, row % prompts.shape[3]] = 1
    return prompts.flatten(2, 3)
