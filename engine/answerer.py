"""A trained model that answers questions about a clip; for a notebook as well:

    answerer = Answerer("runs/NAME")
    for answer in answerer.ask(answerer.read("clip.mp4"), ["Is there a cello sound?"]):
        print(answer.question, answer.best[:3])
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataset.extract import EXTRACTORS, build_extractor
from dataset.extract.media import Clip, MediaError, read_clip
from dataset.extract.weights import RANDOM, Source
from dataset.store import as_maps
from dataset.types import AUDIO, MODALITIES, VISUAL, Batch
from engine import runtime
from engine.errors import UsageError, shown
from engine.evaluation import probabilities
from engine.restore import checkpoint_in, load_trained

END = "?.!\uff1f"            # of a question, not read


@dataclass(frozen=True)
class Streams:
    """What is heard and seen: audio (T, Ca), visual (T, C, H, W), presence (T, 2) bool."""

    audio: Tensor
    visual: Tensor
    presence: Tensor

    def without(self, modality: int) -> Streams:
        """The same with one modality missing."""
        presence = self.presence.clone()
        presence[:, modality] = False
        return replace(self, presence=presence)

    def only(self, presence: Tensor) -> Streams:
        """What `presence` (T, 2) leaves of the same."""
        return replace(self, presence=self.presence & presence)


@dataclass(frozen=True)
class Answer:
    """`best`: answers and probabilities, most probable first. `notes`: what was not read."""

    question: str
    best: list[tuple[str, float]]
    notes: list[str]


class Answerer:
    """The model of `checkpoint`, a run folder, a checkpoint or an exported folder.

    `weights`: of the extractors by name, local files or RANDOM; without, they are downloaded once.
    UsageError where checkpoint, clip or question cannot be used.
    """

    def __init__(self, checkpoint: str | Path, weights: dict[str, Source] | None = None, device: str = "auto") -> None:
        self.trained = load_trained(checkpoint_in(Path(checkpoint)))
        self.accelerator = runtime.make_accelerator({"device": device, "bf16": False})
        self.device, self.weights = self.accelerator.device, weights or {}
        if self.trained.dry_run and RANDOM not in self.weights.values():
            raise UsageError("the checkpoint was trained in a dry run, on features of random extractor weights; add "
                             "--weights random to try it, or train on features of the published weights")
        self.trained.model.to(self.device)
        self.spec, self.vocabulary, self.config = self.trained.spec, self.trained.vocabulary, self.trained.config
        self.extractor = cache(lambda name: build_extractor(name, self.weights.get(name), self.device))
        self.text_reader = cache(self.open_text_reader)

    def extractor_names(self) -> dict[int, str]:
        """The extractor behind each feature folder of the data set of the training."""
        names = {}
        for modality, key in ((AUDIO, "audio_folder"), (VISUAL, "visual_folder")):
            folder = Path(self.config["dataset"].get(key, "")).name
            if folder not in EXTRACTORS:
                raise UsageError(f"the checkpoint was trained on dataset={self.config['dataset']['name']}, whose "
                                 f"{MODALITIES[modality]} features cannot be made from a video; train on features of "
                                 f"scripts/extract_features.py ({', '.join(EXTRACTORS)})")
            names[modality] = folder
        return names

    @property
    def seconds(self) -> int:
        """How much of a clip is used."""
        return self.spec.segments * self.step

    @property
    def step(self) -> int:
        """Seconds between two segments."""
        return self.trained.row_seconds * self.config["dataset"].get("stride", 1)

    def read(self, video: str | Path, mute: bool = False, blank: bool = False) -> Streams:
        """The features of a clip, as the training had them; without sound, without picture."""
        clip = self.decode(video)
        return self.features(Clip(clip.frames[:0] if blank else clip.frames, clip.sound[:0] if mute else clip.sound))

    def decode(self, video: str | Path) -> Clip:
        """The seconds of a clip that the training would read."""
        self.extractor_names()
        try:
            return read_clip(Path(video), [i * self.step for i in range(self.spec.segments)])
        except MediaError as error:
            raise UsageError(f"video {video}: {error}") from error

    def features(self, clip: Clip) -> Streams:
        """What the extractors make of a decoded clip."""
        names = self.extractor_names()
        counts = {AUDIO: len(clip.sound), VISUAL: len(clip.frames)}
        presence = torch.zeros(self.spec.segments, 2, dtype=torch.bool)
        for modality, count in counts.items():
            presence[:count, modality] = True
        audio, visual = (self.stream(clip, modality, names[modality], counts[modality]) for modality in names)
        return Streams(audio, visual, presence)

    def stream(self, clip: Clip, modality: int, name: str, count: int) -> Tensor:
        """(T, Ca) or (T, C, H, W), zeros from segment `count` on."""
        spec = self.spec
        shape = (spec.audio_channels,) if modality == AUDIO else (spec.visual_channels, *spec.grid)
        values = np.zeros((spec.segments, *shape), dtype=np.float32)
        if count:
            features = self.extractor(name)(clip)
            if modality == VISUAL and spec.frame_token:
                features = as_maps(features, "cls_first")
            if features.shape[1:] != shape:
                raise UsageError(f"the checkpoint expects {MODALITIES[modality]} features of shape {shape}, "
                                 f"{name} gives {features.shape[1:]}")
            values[:count] = features
        return torch.from_numpy(values)

    def ask(self, streams: Streams, questions: Sequence[str],
            choices: Sequence[Sequence[str]] | None = None) -> list[Answer]:
        """An answer to each question. `choices`: the candidates of each, two or more; a checkpoint
        of open questions then answers with the likeliest of them.
        """
        given = choices or [[]] * len(questions)
        return [self.ask_one(streams, *pair) for pair in zip(questions, given, strict=True)]

    def ask_one(self, streams: Streams, question: str, choices: Sequence[str]) -> Answer:
        words, notes = self.prepare(question, choices)
        shares = probabilities(self.trained.model, self.batch(streams, words, choices), self.accelerator)[0].tolist()
        answers = list(choices) if self.spec.choices else self.vocabulary.answers
        best = sorted(zip(answers, shares, strict=True), key=lambda pair: -pair[1])
        if choices and not self.spec.choices:
            best = [(answer, share) for answer, share in best if answer in choices]
            total = sum(share for _, share in best) or 1.0
            best = [(answer, share / total) for answer, share in best]
        return Answer(question, best, notes)

    def batch(self, streams: Streams, words: tuple[str, ...], choices: Sequence[str] = ()) -> Batch:
        """One question, on the CPU; zeros in all that is absent."""
        absent = ~streams.presence                                                     # (T, 2)
        zero = torch.zeros(1, dtype=torch.int64)
        batch = Batch(
            audio=streams.audio.masked_fill(absent[:, AUDIO, None], 0)[None],
            visual=streams.visual.masked_fill(absent[:, VISUAL, None, None, None], 0)[None],
            words=torch.tensor([self.vocabulary.encode_words(words)]), answer=zero, presence=streams.presence[None],
            question_id=zero, row=zero, video=zero, **self.text_features(words))
        if self.spec.choices:
            batch.choices = torch.tensor([self.vocabulary.encode_choices(tuple(map(self.split, choices)))])
        return batch

    def prepare(self, question: str, choices: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
        """The words of the question, and a note on all that is not read; UsageError if it cannot be
        asked.
        """
        if (choices or self.spec.choices) and len(set(choices)) < 2:
            raise UsageError("a multiple choice needs two different candidates or more"
                             + "; this checkpoint answers multiple choice alone" * bool(self.spec.choices))
        unknown = [choice for choice in choices if choice not in self.vocabulary.answer_index]
        if unknown and not self.spec.choices:
            raise UsageError(f"the checkpoint never gives the answer {shown(unknown[0])}; it chooses among: "
                             f"{', '.join(self.vocabulary.answers)}")
        return self.read_words(question)

    def split(self, text: str) -> tuple[str, ...]:
        """Words as in the training; those of multiple choice are in lower case."""
        text = text.strip().rstrip(END)
        return tuple((text.lower() if self.spec.choices else text).split())

    def read_words(self, question: str) -> tuple[tuple[str, ...], list[str]]:
        """The words, and a note on each that training never saw, with the nearest known one; a
        backbone on CLIP's text reads all of them.
        """
        words, notes = self.split(question), []
        if words and self.trained.model.backbone.reads_text:
            return words, notes
        unknown = [word for word in words if word not in self.vocabulary.word_index]
        for word in unknown:
            near = difflib.get_close_matches(word, self.vocabulary.words[1:], n=1, cutoff=0.6)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            notes.append(f"'{word}' is outside the vocabulary and is ignored{hint}")
        if len(unknown) == len(words):
            raise UsageError(f"the question {shown(question)} holds no word of the vocabulary the checkpoint was "
                             f"trained on; such words are, for example: {', '.join(self.vocabulary.words[1:9])}")
        if len(words) > self.vocabulary.length:
            notes.append(f"only the first {self.vocabulary.length} words are read, the longest question of the "
                         "training data")
        return words, notes

    def text_features(self, words: tuple[str, ...]) -> dict[str, Tensor]:
        """What CLIP reads, as the fields of a batch; nothing where the checkpoint needs none."""
        if not self.spec.text_channels:
            return {}
        tokens, whole = self.text_reader()([" ".join(words)])
        if whole.shape[1] != self.spec.text_channels:
            raise UsageError(f"the checkpoint expects question features of {self.spec.text_channels} channels, this "
                             f"CLIP gives {whole.shape[1]}; give its weights with --weights clip_vit_b32=FOLDER")
        return {"text_words": torch.from_numpy(tokens), "text_question": torch.from_numpy(whole)}

    def open_text_reader(self) -> Any:
        from dataset.extract.clip import ClipWords  # here, or every answer would wait for transformers

        return ClipWords(self.weights.get("clip_vit_b32"), self.device)
