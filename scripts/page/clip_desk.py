"""What the tab of one's own clip shows: its segments, the answers, and where a run looked."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from dataset import build_dataset
from dataset.extract.media import Clip, MediaError, read_clip
from dataset.extract.weights import RANDOM
from dataset.extracted import WARNING
from dataset.floor import majority_guesses
from dataset.types import AUDIO, VISUAL, Question
from engine.answerer import Streams
from engine.errors import UsageError
from scripts.page.answers import STATES, answer, distances, presence_of, switched
from scripts.page.columns import Column, Said, draw
from scripts.page.marks import HEAT, note, page
from scripts.page.picker import Picker, objects
from scripts.page.runs import Runs
from scripts.page.trouble import TROUBLE, sentence

SECONDS, SIDE = 10, 116                  # shown where no run says how many; pixels of a frame
NO_CLIP = "No clip is open yet: choose a file or give its path, then ask."
NO_RUN = ("No run trained on features of videos was given, so the clip is shown and nobody answers: docs/data.md has "
          "the way from videos to a trained run; then load this page again.")
NO_FLOOR = "not known: the training questions are not at hand"


class ClipDesk:
    """Answers of `runs` on a clip of the visitor's."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self.decoded = lru_cache(4)(self.decode)
        self.extracted = lru_cache(8)(self.extract)
        self.readers: dict[tuple, tuple] = {}
        self.ask_cached = lru_cache(128)(self.ask)
        self.guess_cached = lru_cache(64)(self.guess)

    def open(self, path: str | None, label: str | None) -> tuple[Clip, tuple]:
        """The clip as the run reads it and a key of its content; UsageError where it is none."""
        if not path or not path.strip():
            raise UsageError(NO_CLIP)
        file = Path(path.strip()).expanduser()
        if not file.is_file():
            raise UsageError(f"there is no file {file.name}; give the path of a video")
        key = (str(file), file.stat().st_mtime_ns, label)
        return self.decoded(key), key

    def decode(self, key: tuple) -> Clip:
        path, _, label = key
        try:
            return self.runs.open(label).decode(path) if label else read_clip(Path(path), list(range(SECONDS)))
        except (UsageError, MediaError) as error:
            reason = str(error).replace(f"video {path}: ", "").replace(path, Path(path).name)
            raise UsageError(f"the clip {Path(path).name} {reason}") from error

    def shape(self, label: str | None) -> tuple[int, bool]:
        """How many segments a run reads, and whether it answers multiple choice."""
        try:
            spec = self.runs.open(label).spec if label else None
        except TROUBLE:                  # the columns name it
            spec = None
        return (spec.segments, bool(spec.choices)) if spec else (SECONDS, False)

    def segments(self, label: str | None) -> int:
        return self.shape(label)[0]

    def streams(self, key: tuple) -> Streams:
        """The features of a clip; runs that read it alike share them."""
        answerer = self.runs.open(key[2])
        alike = (*key[:2], *answerer.extractor_names().values(), answerer.step,
                 answerer.spec.segments, answerer.spec.frame_token)
        return self.extracted(self.readers.setdefault(alike, key))

    def extract(self, key: tuple) -> Streams:
        return self.runs.open(key[2]).features(self.decoded(key))

    def picker(self, label: str | None) -> Picker:
        """The templates in the words of a run."""
        try:
            vocabulary = self.runs.open(label).vocabulary if label else None
        except TROUBLE:
            vocabulary = None
        if vocabulary is None:
            return Picker()
        return Picker(objects(vocabulary.words), vocabulary.word_index)

    def picture(self, path: str | None, sound: Sequence[str], picture: Sequence[str], question: str | None,
                labels: Sequence[str | None]) -> str:
        """The segments of the clip; over the frames where the first run looks, once it is asked."""
        label = next(filter(None, labels), None)
        try:
            clip, key = self.open(path, label)
            left = switched(sound, picture, self.segments(label))
            remarks = [f"This clip has no {name}; it is answered without." for name, rows in
                       (("sound", clip.sound), ("picture", clip.frames)) if not len(rows)]
        except TROUBLE as error:
            return page(note(sentence(error)))
        maps = self.maps(key, question, left)
        segments = "".join(segment(clip, t, left[t], maps[t] if left[t, VISUAL] else None) for t in range(len(left)))
        return page("".join(map(note, remarks)) + f'<div class="strip">{segments}</div>')

    def maps(self, key: tuple, question: str | None, left: np.ndarray) -> Sequence[np.ndarray | None]:
        """Where the run looks in every segment, (H, W) from 0 to 1, as far as it can be said."""
        unknown = [None] * len(left)
        if not key[2] or not (question or "").strip():
            return unknown
        try:
            said = self.ask_cached(key, self.runs.changed(key[2]), question, left.tobytes(), ())
            space = said.look.attention.get("space")
        except TROUBLE:                  # the columns name it
            return unknown
        if space is None:
            return unknown
        low = float(space.min())
        return (space.reshape(len(left), *self.runs.open(key[2]).spec.grid) - low) / max(float(space.max()) - low, 1e-9)

    def result(self, path: str | None, sound: Sequence[str], picture: Sequence[str], question: str | None,
               labels: Sequence[str | None], candidates: str | None = None) -> str:
        """All columns; one sentence where nothing can be answered."""
        chosen = list(dict.fromkeys(label for label in labels if label))
        try:
            if not chosen:
                raise UsageError(NO_RUN)
            self.open(path, chosen[0])
            if not (question or "").strip():
                raise UsageError("Ask something: choose a template, or type a question.")
            left, remarks = switched(sound, picture, self.segments(chosen[0])), []
            choices = tuple(part.strip() for part in (candidates or "").split(",") if part.strip())
            columns = [self.column(path, state, left, question, chosen, choices, remarks) for state in STATES]
            guess = self.guess_cached(chosen[0], question)
            floor = f"{guess}: the majority answer of training to this question" if guess else NO_FLOOR
            return draw(columns, floor, None, self.runs.open(chosen[0]).spec.grid, remarks)
        except TROUBLE as error:
            return page(note(sentence(error)))

    def column(self, path: str, state: str, switches: np.ndarray, question: str, labels: Sequence[str],
               choices: tuple[str, ...], remarks: list[str]) -> Column:
        runs, left = [], presence_of(state, switches)
        for label in labels:
            try:
                if self.segments(label) != len(left):
                    raise UsageError(f"it reads {self.segments(label)} segments of a clip, the first run {len(left)}; "
                                     "compare runs that read the same")
                key = self.open(path, label)[1]
                runs.append(self.ask_cached(key, self.runs.changed(label), question, left.tobytes(), choices))
                remarks += runs[-1].answer.notes
                remarks += [WARNING] if RANDOM in self.runs.open(label).weights.values() else []
            except TROUBLE as error:
                remarks.append(f"{label}: {sentence(error)}")
        own = self.streams(self.open(path, labels[0])[1]).presence.numpy() if runs else np.ones_like(left)
        return Column(state, left & own, runs)

    def ask(self, key: tuple, _changed: int, question: str, presence: bytes, choices: tuple[str, ...]) -> Said:
        """`_changed`: when the run was written, so that no answer of an older one is kept."""
        left, label = np.frombuffer(presence, dtype=bool).reshape(-1, 2), key[2]
        answerer, streams = self.runs.open(label), self.streams(key)
        given, look = answer(answerer, streams, question, left, choices)
        return Said(label, given, look, distances(answerer, streams, question, left, choices))

    def guess(self, label: str, question: str) -> str | None:
        """The majority answer of training, where the run's data set is at hand."""
        answerer = self.runs.open(label)
        words, _ = answerer.read_words(question)
        try:
            train = build_dataset(answerer.config["dataset"]).questions("train")
        except TROUBLE:
            return None
        same = next((q for q in train if q.words == words), None)
        if same is None or same.choices:
            return None
        return majority_guesses(train, [Question(0, 0, "", same.type, same.template, words, "")])[0]


def segment(clip: Clip, t: int, there: np.ndarray, weights: np.ndarray | None) -> str:
    """Frame and wave of one segment, faded unless `there` (2,); `weights` (H, W) lie above."""
    picture = frame(clip.frames[t], weights) if t < len(clip.frames) else nothing("no picture")
    loudest = max(float(np.abs(clip.sound).max(initial=0)), 1e-3)
    sound = wave(clip.sound[t] / loudest) if t < len(clip.sound) else nothing("no sound")
    parts = [f'<div{"" if there[modality] else " class=off"}>{drawn}</div>'
             for modality, drawn in ((VISUAL, picture), (AUDIO, sound))]
    return f'<div>{"".join(parts)}<div class="small" style="text-align:center">{t + 1}</div></div>'


def nothing(text: str) -> str:
    return f'<div class="small" style="width:{SIDE}px;padding:12px 0;text-align:center">{text}</div>'


def frame(pixels: np.ndarray, weights: np.ndarray | None) -> str:
    """A frame (n, n, 3) uint8, coloured by `weights` (H, W)."""
    image = Image.fromarray(pixels).resize((SIDE, SIDE))
    if weights is not None:
        mask = Image.fromarray((200 * weights).astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        image.paste(Image.new("RGB", image.size, HEAT), mask=mask)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    text = base64.b64encode(buffer.getvalue()).decode()
    return f'<img width="{SIDE}" height="{SIDE}" alt="frame" src="data:image/jpeg;base64,{text}">'


def wave(samples: np.ndarray) -> str:
    """The loudest sample of every 58th of a second (16000,), as lines."""
    peaks = np.abs(samples[:len(samples) // 58 * 58]).reshape(58, -1).max(axis=1)
    lines = "".join(f'<path d="M{2 * i + 1} {20 - 18 * p:.1f}V{20 + 18 * p:.1f}"/>' for i, p in enumerate(peaks))
    return f'<svg width="{SIDE}" height="40" stroke="#0d9488" stroke-width="1.4" aria-label="sound">{lines}</svg>'
