"""Questions and features to batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch

from dataset.presence import Scenario
from dataset.types import AUDIO, VISUAL, Batch, DataError, Question
from dataset.vocabulary import Vocabulary

if TYPE_CHECKING:
    from dataset.base import DataSet

class QuestionSet:
    """The questions of `split` under `scenario`, to batches; an item is a Batch of one question.

    `negatives="other_video"` adds, per segment, a row drawn from another video of the split, anew
    every `epoch`. `read` fetches a video's segments and may be cached by the caller. What the data
    themselves lack is absent; `scenario` takes from the rest.
    """

    def __init__(self, data: DataSet, split: str, vocabulary: Vocabulary, scenario: Scenario,
                 read: Callable[[str, int], np.ndarray], *, negatives: str, seed: int, epoch: int) -> None:
        self.questions, self.train = data.asked(split), split == "train"
        self.audio, self.visual = data.stores[AUDIO], data.stores[VISUAL]
        self.recorded, self.text = data.recorded, data.text
        self.vocabulary, self.scenario, self.read = vocabulary, scenario, read
        self.negatives, self.seed, self.epoch = negatives, seed, epoch
        videos = sorted({q.video_id for q in self.questions})
        self.video_index = {video: i for i, video in enumerate(videos)}
        self.seen = [video for video in videos if not self.recorded.lacks(video, VISUAL)]
        self.seen_index = {video: i for i, video in enumerate(self.seen)}
        if negatives == "other_video" and len(self.seen) < 2:
            raise DataError("backbone.negatives=other_video needs at least two videos with a picture in the training "
                            "split")

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, index: int) -> Batch:
        return self.batch([index])

    def batch(self, positions: list[int]) -> Batch:
        """The questions at `positions` as one batch."""
        asked = [self.questions[i] for i in positions]
        presence = np.stack([self.presence(q) for q in asked])                      # (B, T, 2)
        batch = Batch(
            audio=self.stream(asked, presence, AUDIO),
            visual=self.stream(asked, presence, VISUAL),
            words=torch.tensor([self.vocabulary.encode_words(q.words) for q in asked]),
            answer=torch.tensor([self.answer(q) for q in asked]),
            presence=torch.from_numpy(presence),
            question_id=torch.tensor([q.question_id for q in asked]),
            row=torch.tensor([q.row for q in asked]),
            video=torch.tensor([self.video_index[q.video_id] for q in asked]),
        )
        if asked[0].choices:
            batch.choices = torch.tensor([self.vocabulary.encode_choices(q.choices) for q in asked])
        if self.negatives == "other_video":
            batch.negative_visual = torch.from_numpy(np.stack([self.negative(q) for q in asked]))
        if self.text:
            parts = zip(*map(self.text.read, asked), strict=True)
            batch.text_words, batch.text_question = (torch.from_numpy(np.stack(part)) for part in parts)
        return batch

    def presence(self, question: Question) -> np.ndarray:
        """(T, 2) bool: what neither the scenario takes nor the data lack."""
        present = self.scenario.presence(question.row, self.audio.segments)
        for modality, store in enumerate((self.audio, self.visual)):
            video = question.video_of(modality)
            recorded = self.recorded.presence(video, store.segments, store.stride, self.train)
            present[:, modality] &= recorded[:, modality]
            if present[:, modality].any():           # else its file is not even opened
                present[store.segments_of(video):, modality] = False
        return present

    def answer(self, question: Question) -> int:
        """Position among the question's candidates, or in the vocabulary where it has none."""
        if question.choices:
            return question.texts.index(question.answer)
        return self.vocabulary.encode_answer(question.answer)

    def stream(self, asked: list[Question], presence: np.ndarray, modality: int) -> torch.Tensor:
        """(B, T, ...), zeros where absent; the file of a wholly absent modality stays closed."""
        store = (self.audio, self.visual)[modality]
        present = presence[..., modality]                                           # (B, T)
        if present.all():
            return torch.from_numpy(np.stack([self.read(question.video_of(modality), modality) for question in asked]))
        values = np.zeros((len(asked), store.segments, *store.shape), store.dtype)
        for row, question in enumerate(asked):
            if present[row].any():
                values[row][present[row]] = self.read(question.video_of(modality), modality)[present[row]]
        return torch.from_numpy(values)

    def negative(self, question: Question) -> np.ndarray:
        """(T, C, H, W): each segment from a random row of a random other video."""
        rng = np.random.default_rng([self.seed, self.epoch, question.row])
        own = self.seen_index.get(question.video_id, len(self.seen))
        others = len(self.seen) - (own < len(self.seen))
        rows = []
        for _ in range(self.visual.segments):
            other = int(rng.integers(others))
            video = self.seen[other + (other >= own)]
            present = self.visual.rows_of(video)
            if video in self.recorded.rows:
                present = min(present, self.visual.stored_rows(self.recorded.rows[video][VISUAL]))
            rows.append(self.visual.read(video, int(rng.integers(present))))
        return np.stack(rows)


def epoch_order(size: int, shuffle: bool, seed: int, epoch: int, rank: int, world_size: int) -> list[int]:
    """Positions of one process: a function of (seed, epoch) alone, so a resumed epoch is the same.

    Shuffled (training), every process gets equally many, the surplus of less than one round is left
    out; in order (evaluation), every question is taken by exactly one process.
    """
    order = np.random.default_rng([seed, epoch]).permutation(size) if shuffle else np.arange(size)
    if shuffle:
        order = order[:size - size % world_size]
    return order[rank::world_size].tolist()


class QuestionLoader:
    """The batches at `positions` of `questions`, made ahead of time by `workers` threads, or on
    demand by none.

    Threads and not processes: reading and copying features releases the interpreter lock, while
    handing a batch from one process to another costs more than making it (measured by
    scripts/benchmark.py loader).
    """

    AHEAD = 2                # batches per worker that are made or wait

    def __init__(self, questions: QuestionSet, positions: list[list[int]], workers: int) -> None:
        self.questions, self.batches, self.workers = questions, positions, workers

    def __len__(self) -> int:
        return len(self.batches)

    def make(self, positions: list[int]) -> Batch:
        batch = self.questions.batch(positions)
        return batch.pin_memory() if torch.cuda.is_available() else batch

    def __iter__(self) -> Iterator[Batch]:
        if not self.workers:
            yield from map(self.make, self.batches)
            return
        remaining, waiting = iter(self.batches), deque()
        with ThreadPoolExecutor(self.workers, thread_name_prefix="loader") as pool:
            try:
                for positions in islice(remaining, self.AHEAD * self.workers):
                    waiting.append(pool.submit(self.make, positions))
                while waiting:
                    batch = waiting.popleft().result()
                    waiting.extend(pool.submit(self.make, positions) for positions in islice(remaining, 1))
                    yield batch
            finally:         # left early, by an error or a step limit: what has not begun need not
                pool.shutdown(wait=True, cancel_futures=True)


def make_loader(questions: QuestionSet, *, batch_size: int, shuffle: bool, seed: int = 0, epoch: int = 0,
                workers: int = 0, rank: int = 0, world_size: int = 1) -> QuestionLoader:
    """Batches of one epoch for one process."""
    order = epoch_order(len(questions), shuffle, seed, epoch, rank, world_size)
    return QuestionLoader(questions, [order[i:i + batch_size] for i in range(0, len(order), batch_size)], workers)
