"""What a run answers from what is left of a scene or clip, and what it looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from dataset.types import AUDIO, MODALITIES, VISUAL
from engine.answerer import Answer, Answerer, Streams
from models.features import Features, blank_features

STATES = ("complete", "audio missing", "visual missing", "as switched")


@dataclass(frozen=True)
class Look:
    """What led to an answer.

    `attention`: as of `Fused`, (T,) or (T, N). `slots`: by missing modality the weights (n, K) of
    the slots it was recalled from, of the n segments that lack it.
    """

    attention: dict[str, np.ndarray] = field(default_factory=dict)
    slots: dict[str, np.ndarray] = field(default_factory=dict)


def presence_of(state: str, switches: np.ndarray) -> np.ndarray:
    """(T, 2) bool: what is left in one of `STATES`. `switches` (T, 2) bool."""
    left = switches.copy() if state == "as switched" else np.ones_like(switches)
    left[:, [modality for modality, name in enumerate(MODALITIES) if state == f"{name} missing"]] = False
    return left


def answer(answerer: Answerer, streams: Streams, question: str, presence: np.ndarray,
           choices: Sequence[str] = ()) -> tuple[Answer, Look]:
    """From what `presence` (T, 2) leaves of `streams`; nothing else of them is read.

    UsageError where the question cannot be asked.
    """
    left = streams.only(torch.from_numpy(presence.copy()))
    return answerer.ask(left, [question], [choices] if choices else None)[0], look(answerer, left, question, choices)


@torch.inference_mode()
def look(answerer: Answerer, streams: Streams, question: str, choices: Sequence[str] = ()) -> Look:
    """Attention and addressing behind the answer."""
    features = encode(answerer, streams, question, choices)
    net, absent = answerer.trained.model, ~streams.presence
    attention = net.backbone.fuse(net.method.fill_in(features).with_(wants_attention=True)).attention or {}
    slots = {}
    if bool(absent.any()) and (weights := net.method.addressing(features)):
        slots = {name: weights[modality][0][absent[:, modality]].numpy(force=True)
                 for modality, name in enumerate(MODALITIES) if bool(absent[:, modality].any())}
    return Look({name: weights.mean(dim=0).numpy(force=True) for name, weights in attention.items()}, slots)


@torch.inference_mode()
def distances(answerer: Answerer, streams: Streams, question: str, presence: np.ndarray,
              choices: Sequence[str] = ()) -> dict[str, dict[str, float]]:
    """How far what stands in for the absent lies from the real feature, by stage and modality.

    The length of the difference over that of the real feature: 0 is the real one, 1 as far as
    zeros. This alone reads what `presence` takes away; no answer depends on it.
    """
    net, left = answerer.trained.model, torch.from_numpy(presence.copy())
    real = encode(answerer, streams, question, choices)
    lost = streams.presence & ~left                                                 # (T, 2)
    if not bool(lost.any()):
        return {}
    blank = blank_features(real, (streams.presence & left)[None].to(real.audio.device))
    truth, result = net.method.fill_in(real), {}
    for stage, guess in net.method.stages(blank).items():
        if guess.filled:
            result[stage] = {name: distance(truth, guess, modality, lost) for modality, name in enumerate(MODALITIES)
                             if bool(lost[:, modality].any())}
    return result


def distance(truth: Features, guess: Features, modality: int, rows: torch.Tensor) -> float:
    """In the segments `rows` (T, 2) of the one question."""
    name = MODALITIES[modality]
    real, stand_in = (getattr(f, name)[0][rows[:, modality].to(f.audio.device)].float() for f in (truth, guess))
    return float((stand_in - real).norm() / real.norm().clamp_min(1e-12))


def encode(answerer: Answerer, streams: Streams, question: str, choices: Sequence[str]) -> Features:
    """The features of one question, absent entries blank."""
    words, _ = answerer.prepare(question, choices)
    net = answerer.trained.model.eval()
    return net.encode(answerer.batch(streams, words, choices).to(answerer.device))


def effective_slots(weights: np.ndarray) -> float:
    """How many slots the addressing (n, K) spreads over: the exponential of its entropy, a mean."""
    return float(np.exp(-(weights * np.log(np.maximum(weights, 1e-30))).sum(axis=-1)).mean())


def all_there(segments: int) -> np.ndarray:
    """(T, 2) bool."""
    return np.ones((segments, 2), dtype=bool)


def switched(sound: Sequence[str], picture: Sequence[str], segments: int) -> np.ndarray:
    """(T, 2) bool from the names of the segments that are switched on, counted from 1."""
    left = ~all_there(segments)
    for modality, names in ((AUDIO, sound), (VISUAL, picture)):
        left[[int(name) - 1 for name in names if name.isdecimal() and 0 < int(name) <= segments], modality] = True
    return left
