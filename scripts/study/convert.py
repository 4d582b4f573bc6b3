"""Official `net_grd_avst` state dicts, AVST's and the method's, under this project's names.

The names on the left are those of GeWu-Lab/MUSIC-AVQA and VisualAIKHU/Missing-AVQA. In both,
`linear11`, `linear12` and `norm1` belong to the visual stream, `linear21`, `linear22` and `norm2`
to the audio one.
"""

from __future__ import annotations

from torch import Tensor

from engine.errors import UsageError

BACKBONE = {
    "question_encoder.word2vec.": "backbone.question.embedding.",
    "question_encoder.lstm.": "backbone.question.lstm.",
    "question_encoder.fc.": "backbone.question.project.",
    "fc_a1.": "backbone.audio.0.",
    "fc_a2.": "backbone.audio.2.",
    "fc_gl.": "backbone.spatial.project.",
    "fc1.": "backbone.match.0.",
    "fc2.": "backbone.match.2.",
    "fc3.": "backbone.match.4.",
    "fc4.": "backbone.match.6.",
    "attn_a.": "backbone.temporal_audio.attention.",
    "linear21.": "backbone.temporal_audio.feed_forward.0.",
    "linear22.": "backbone.temporal_audio.feed_forward.3.",
    "norm2.": "backbone.temporal_audio.norm.",
    "attn_v.": "backbone.temporal_visual.attention.",
    "linear11.": "backbone.temporal_visual.feed_forward.0.",
    "linear12.": "backbone.temporal_visual.feed_forward.3.",
    "norm1.": "backbone.temporal_visual.norm.",
    "fc_fusion.": "backbone.fusion.",
    "fc_ans.": "head.answer.",
}
METHOD = {
    "memory_network.audio_memory": "method.rmm.audio_slots",
    "memory_network.visual_memory": "method.rmm.visual_slots",
    "memory_network.question_memory": "method.rmm.text_slots",
    "kr.": "method.avr.layout.fold.",
    "kr2.": "method.avr.layout.unfold.",
    "unet.": "method.avr.diffusion.model.",
}
WRAPPER = "module."                      # of nn.DataParallel


def has_method(official: dict[str, Tensor]) -> bool:
    """Whether the state dict is the method's, not the plain backbone's."""
    return any(name.startswith("memory_network.") for name in unwrapped(official))


def unwrapped(official: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix that data parallel wrapping leaves on every name."""
    return {name.removeprefix(WRAPPER): value for name, value in official.items()}


def steps_of(official: dict[str, Tensor]) -> int | None:
    """The number of diffusion steps of the method's checkpoint."""
    betas = unwrapped(official).get("diffusion.betas")
    return None if betas is None else len(betas)


def convert(official: dict[str, Tensor], own: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The official entries under the names of `own`, the state dict of the model they are for, and
    those without a place.

    Weights and slots come from `official`; statistics, which are not learnt, stay those of `own`.

    Raises:
        UsageError: an entry is missing or of another shape.
    """
    table = BACKBONE | METHOD
    state, unused = {}, []
    for name, value in unwrapped(official).items():
        prefix = next((p for p in table if name.startswith(p)), None)
        target = None if prefix is None else table[prefix] + name[len(prefix):]
        if target not in own:
            unused.append(name)
            continue
        if name.startswith(("kr.", "kr2.")) and value.dim() == 4:
            value = value.flatten(1)                                   # a 1x1 convolution is a linear map
        if value.shape != own[target].shape:
            raise UsageError(f"the official entry '{name}' has the shape {tuple(value.shape)}, this model needs "
                             f"{tuple(own[target].shape)} for '{target}'; check the vocabulary, rmm.slots and avr.*")
        state[target] = value
    learnt = [name for name in own if name.startswith(("backbone.", "head.", *METHOD.values()))]
    lacking = [name for name in learnt if name not in state]
    if lacking:
        raise UsageError(f"the file lacks {len(lacking)} of {len(learnt)} needed entries, the first is '{lacking[0]}'; "
                         "is it a net_grd_avst state dict, and the configuration one for it?")
    return {**own, **state}, unused
