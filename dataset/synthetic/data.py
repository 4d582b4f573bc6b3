"""The embedded benchmark on disk: scenes of `world.py` in the layout of MUSIC-AVQA.

Made in seconds from a seed, with disjoint scenes in train, val and test. Feature maps [T, C, 2, 3]
hold, at each seen source's cell, a prototype of its kind in its column (a real map carries position
through its padding; AVST pools it away unless a token itself shows it) and, from the onset of its
motion on, codes of motion and tempo. Sound [T, 128] holds from each onset on the kind with its
loudness and rhythm, the voice-over and the reverberation. Gaussian noise on both.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from dataset.base import DataSet
from dataset.files import refuse_special, remove_leftovers, temporary_beside, write_text
from dataset.memory import refuse_beyond_memory
from dataset.presence import SCENARIOS, Scenario
from dataset.questions import read_questions
from dataset.store import FeatureStore
from dataset.synthetic import world
from dataset.synthetic.oracle import choice_weights, oracle_correct
from dataset.synthetic.rephrasings import rephrase
from dataset.synthetic.templates import ANSWERS, ASKABLE
from dataset.synthetic.world import COLUMNS, KINDS, ROWS, SEGMENTS, Scenes
from dataset.types import AUDIO, VISUAL, DataError, Question

VERSION = 1                  # raise when the files of the same settings change
AUDIO_CHANNELS = 128
SPLITS = ("train", "val", "test")
ANNOTATIONS, FEATURES = "json_update", {AUDIO: "feats/vggish", VISUAL: "feats/res18_14x14"}
Size = Annotated[int, Field(ge=1, le=1_000_000)]


@dataclass(kw_only=True, eq=False)
class Synthetic(DataSet):
    """The embedded benchmark at `root`, generated when it is not there.

    `train_videos` and so on: scenes per split; `questions_per_video`: drawn per scene, repeats left
    out. `channels`: of the visual map. `noise`: standard deviation. `data_seed`: of the scenes; the
    training seed does not touch them. `rephrased`: ask the test questions in other words.
    """

    root: str = "data/synthetic"
    train_videos: Size = 3600
    val_videos: Size = 400
    test_videos: Size = 500
    questions_per_video: Annotated[int, Field(ge=1, le=1000)] = 8
    channels: Annotated[int, Field(ge=8, le=100_000)] = 96
    noise: Annotated[float, Field(ge=0, le=1e6)] = 0.3
    data_seed: Annotated[int, Field(ge=0)] = 0
    rephrased: bool = False

    def __post_init__(self) -> None:
        names = ("train_videos", "val_videos", "test_videos", "questions_per_video", "channels", "noise", "data_seed")
        self.settings = {"version": VERSION} | {name: getattr(self, name) for name in names}
        prepare(Path(self.root), self.settings)
        super().__post_init__()

    def annotation_file(self, split: str) -> Path:
        return self.root / ANNOTATIONS / f"avqa-{split}.json"

    def read_split(self, split: str) -> list[Question]:
        questions = read_questions(self.annotation_file(split))
        if not self.rephrased or split != "test":
            return questions
        known = {word for question in self.questions("train") for word in question.words}
        return [rephrase(question, known) for question in questions]

    @cached_property
    def stores(self) -> dict[int, FeatureStore]:
        return {modality: FeatureStore(self.root / folder, stride=1, dimensions=1 if modality == AUDIO else 3)
                for modality, folder in FEATURES.items()}

    def oracle(self, split: str, scenario: Scenario) -> dict[int, bool] | None:
        """Per row, whether the Bayes oracle is right, kept in a file; None but for SCENARIOS."""
        if SCENARIOS.get(scenario.name) != scenario:
            return None
        path = self.root / f"oracle-{split}-{scenario.name}.json"
        correct = read_oracle(path)
        if correct is None or len(correct) != len(self.questions(split)):
            correct = oracle_correct(*make_split(split, self.settings), scenario.name)
            write_text(path, json.dumps(correct))
        return dict(enumerate(correct))


def read_oracle(path: Path) -> list[bool] | None:
    """What the file holds; None where it is not there or damaged, and so made (again)."""
    refuse_special(path)
    try:
        return TypeAdapter(list[bool]).validate_json(path.read_bytes(), strict=True)
    except (FileNotFoundError, ValidationError):
        return None


def prepare(root: Path, settings: dict[str, Any]) -> None:
    """Generate into a temporary folder and rename it, so that a benchmark is whole or not there.

    Several processes may do so at once: each writes its own folder, one rename wins.
    """
    if is_current(root, settings):
        return
    if root.exists() and any(root.iterdir()):
        raise DataError(f"{root} is not empty and no embedded benchmark; choose another folder with dataset.root=DIR")
    videos = max(settings[f"{split}_videos"] for split in SPLITS)
    values = SEGMENTS * settings["channels"] * (len(KINDS) + 3 * ROWS * len(COLUMNS))      # of a video, on the way
    refuse_beyond_memory(8.0 * videos * values, f"a split of {videos} scenes with {settings['channels']} channels",
                         "set fewer dataset.train_videos or dataset.channels")
    root.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(root.parent)
    temporary = temporary_beside(root)
    try:
        for split in SPLITS:
            write_split(temporary, split, settings)
        (temporary / "manifest.json").write_text(json.dumps(settings, indent=2))
        try:
            temporary.rename(root)           # onto nothing or an empty folder; fails when another process was first
        except OSError:
            if not is_current(root, settings):
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_current(root: Path, settings: dict[str, Any]) -> bool:
    """Whether `root` holds the benchmark of these settings; DataError when it holds another."""
    manifest = root / "manifest.json"
    if not manifest.is_file():
        return False
    try:
        settings_there = json.loads(manifest.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{manifest} is damaged; delete {root}, it is generated again, or choose another folder with "
                        "dataset.root=DIR") from error
    if settings_there == settings:
        return True
    raise DataError(f"{root} holds an embedded benchmark of other settings; delete it, or choose another folder with "
                    "dataset.root=DIR")


def make_split(split: str, settings: dict[str, Any]) -> tuple[Scenes, list[dict[str, Any]]]:
    """Scenes and questions of a split; `scene`, `template` (of ASKABLE), `choice` are positions."""
    rng = np.random.default_rng([settings["data_seed"], SPLITS.index(split)])
    scenes = world.sample(settings[f"{split}_videos"], rng)
    tables = [choice_weights(template, scenes) for template in ASKABLE]
    questions = []
    for scene in range(len(scenes)):
        drawn = set()
        for template in rng.integers(len(ASKABLE), size=settings["questions_per_video"]):
            weights, answers = tables[template][0][:, scene], tables[template][1][:, scene]
            if weights.sum() == 0:
                continue
            choice = int(rng.choice(len(weights), p=weights / weights.sum()))
            if (template, choice) not in drawn:
                drawn.add((template, choice))
                questions.append({"scene": scene, "template": int(template), "choice": choice,
                                  "answer": ANSWERS[answers[choice]]})
    return scenes, questions


def write_split(root: Path, split: str, settings: dict[str, Any]) -> None:
    """Annotations and features of one split."""
    scenes, questions = make_split(split, settings)
    for folder in (*FEATURES.values(), ANNOTATIONS):
        (root / folder).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([settings["data_seed"], 10 + SPLITS.index(split)])
    names = [f"{split}{i:06d}" for i in range(len(scenes))]
    streams = audio_features(scenes, settings, rng), visual_features(scenes, settings, rng)
    for folder, values in zip(FEATURES.values(), streams, strict=True):
        for name, video in zip(names, values, strict=True):
            np.save(root / folder / f"{name}.npy", video)
    first = SPLITS.index(split) * 1_000_000          # question ids are unique over the splits
    records = [to_record(q, names[q["scene"]], first + i) for i, q in enumerate(questions)]
    (root / ANNOTATIONS / f"avqa-{split}.json").write_text(json.dumps(records))


def to_record(question: dict[str, Any], video: str, number: int) -> dict[str, Any]:
    """One annotation with exactly the keys of the release."""
    template = ASKABLE[question["template"]]
    return {
        "video_id": video, "question_id": number, "type": json.dumps(template.type.split("/")),
        "question_content": template.text, "templ_values": json.dumps(template.choices[question["choice"]]),
        "question_deleted": 0, "anser": question["answer"],
    }


def codes(name: str, *shape: int) -> np.ndarray:
    """Fixed N(0, 1) vectors of one property, the same in every benchmark of these shapes."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    return np.random.default_rng(seed).standard_normal(shape)


def after(onset: np.ndarray) -> np.ndarray:
    """(S, T, K): whether a source with that onset (S, K) has started in a segment."""
    return onset[:, None, :] <= np.arange(SEGMENTS)[None, :, None]


def audio_features(scenes: Scenes, settings: dict[str, Any], rng: np.random.Generator) -> np.ndarray:
    """(S, T, 128) float32."""
    C = AUDIO_CHANNELS
    source = codes("sound", len(KINDS), C)                                                         # (K, C)
    source = source + codes("loudness", len(KINDS), C) * scenes.loudness[..., None]                # (S, K, C)
    source = source + codes("rhythm", len(KINDS), C) * scenes.rhythm[..., None]
    active = scenes.heard[:, None] & after(scenes.onset)                                           # (S, T, K)
    sound = np.einsum("stk,skc->stc", active, source)
    sound += (scenes.voice[:, None] * codes("voice", C) + scenes.reverb[:, None] * codes("reverb", C))[:, None]
    return (sound + settings["noise"] * rng.standard_normal(sound.shape)).astype(np.float32)


def visual_features(scenes: Scenes, settings: dict[str, Any], rng: np.random.Generator) -> np.ndarray:
    """(S, T, C, 2, 3) float32."""
    C, kinds = settings["channels"], np.arange(len(KINDS))
    still = codes("kind", len(KINDS), C) + codes("kind in column", len(KINDS), len(COLUMNS), C)[kinds, scenes.column]
    moving = codes("playing", len(KINDS), C) + codes("motion", len(KINDS), C) * scenes.motion[..., None]
    moving = moving + codes("tempo", len(KINDS), C) * scenes.tempo[..., None]                      # (S, K, C)
    active = scenes.moving[:, None] & after(scenes.seen_onset)                                     # (S, T, K)
    source = (still[:, None] + active[..., None] * moving[:, None]) * scenes.seen[:, None, :, None]     # (S, T, K, C)
    cell = np.eye(ROWS * len(COLUMNS))[scenes.row * len(COLUMNS) + scenes.column]                  # (S, K, N)
    maps = np.einsum("stkc,skn->stcn", source, cell)
    maps += (scenes.indoor[:, None] * codes("indoor", C))[:, None, :, None]
    maps += settings["noise"] * rng.standard_normal(maps.shape)
    return maps.reshape(*maps.shape[:3], ROWS, len(COLUMNS)).astype(np.float32)
