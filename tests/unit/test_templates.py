"""The templates against the real annotations, and answers against laws of every scene."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset.questions import PLACEHOLDER
from dataset.synthetic.templates import ANSWERS, ASKABLE, COLUMNS, FILLS, NUMBERS, TEMPLATES
from dataset.synthetic.world import KINDS, sample
from dataset.types import QUESTION_TYPES

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "music_avqa"
FILES = ("avqa-train_fake.json", "avqa-val.json")
seeds = st.integers(0, 2**32 - 1)


def family(answer: str) -> str:
    """Numbers and instruments stand for each other: scenes here hold fewer sources, or none."""
    return "number" if answer in NUMBERS else "kind" if answer in KINDS else answer


def by_text(text: str):
    return next(t for t in ASKABLE if t.text == text)


def test_each_choice_fills_every_placeholder():
    """With a value of the placeholder's kind."""
    assert len({t.text for t in TEMPLATES}) == len(TEMPLATES) == 33
    assert {t.type for t in TEMPLATES} == set(QUESTION_TYPES)
    for template in ASKABLE:
        slots = [slot[1:-1] for slot in PLACEHOLDER.findall(template.text)]
        for values in template.choices:
            assert len(values) == len(slots) and all(v in FILLS[s] for s, v in zip(slots, values, strict=True))


def test_the_odd_endings_of_the_release_are_kept():
    """Two texts end in a blank and one in a full-width question mark; a tidied text would no longer
    match real data."""
    ends = {t.text[-2:] for t in TEMPLATES if not t.text.endswith("?")}
    assert ends == {"? ", "o\uff1f"} and sum(t.text.endswith("? ") for t in TEMPLATES) == 2
    assert not any("  " in t.text for t in TEMPLATES)


def test_only_two_of_a_kind_cannot_be_asked():
    assert [t.text for t in TEMPLATES if t.ask is None] == ["Which <Object> makes the sound <FL>?"]


@pytest.mark.skipif(not REAL.is_dir(), reason="the real annotations are not at hand")
def test_values_and_answers_are_those_of_the_real_template():
    values, answers = defaultdict(set), defaultdict(set)
    for record in (r for name in FILES for r in json.loads((REAL / name).read_text(encoding="utf-8"))):
        for slot, value in zip(PLACEHOLDER.findall(record["question_content"]), json.loads(record["templ_values"]),
                               strict=True):
            values[slot[1:-1]].add(value)
        answers[record["question_content"]].add(record["anser"])
    assert set(KINDS) <= values["Object"]
    for slot in FILLS.keys() - {"Object"}:
        assert values[slot] <= set(FILLS[slot]) <= values[slot] | {"fourth", "fifth"}     # in the training file alone
    assert set(ANSWERS) - set(KINDS) <= set().union(*answers.values()) | {"ten"}     # `ten` occurs in training alone
    scenes = sample(3000, np.random.default_rng(0))
    for template in ASKABLE:
        asked = [template.ask(scenes, *v) for v in template.choices]
        given_here = {ANSWERS[a] for w, answer in asked for a in answer[w > 0]}
        assert {family(a) for a in given_here} <= {family(a) for a in answers[template.text]}, template.text


@settings(deadline=None, max_examples=20)
@given(seeds)
def test_comparisons_turn_around_with_their_objects(seed):
    scenes = sample(200, np.random.default_rng(seed))
    yes, no = ANSWERS.index("yes"), ANSWERS.index("no")
    for text in ("louder than the <Object>?", "more rhythmic than the <Object>?", "playing longer than the <Object>?"):
        template = by_text(f"Is the <Object> {text}")
        weight, answer = template.ask(scenes, "cello", "drum")
        turned_weight, turned = template.ask(scenes, "drum", "cello")
        asked = weight > 0
        np.testing.assert_array_equal(weight, turned_weight)
        assert ((answer[asked] == yes) == (turned[asked] == no)).all()


@settings(deadline=None, max_examples=20)
@given(seeds)
def test_mirrored_scenes_swap_left_and_right(seed):
    scenes = sample(200, np.random.default_rng(seed))
    mirrored = scenes[:]
    mirrored.column = 2 - scenes.column
    mirror = np.arange(len(ANSWERS))
    left, right = ANSWERS.index(COLUMNS[0]), ANSWERS.index(COLUMNS[2])
    mirror[[left, right]] = right, left
    for text in ("Where is the <LL> instrument?", "Where is the <FL> sounding instrument?"):
        template = by_text(text)
        for values in template.choices:
            weight, answer = template.ask(scenes, *values)
            other_weight, other = template.ask(mirrored, *values)
            np.testing.assert_array_equal(weight, other_weight)
            np.testing.assert_array_equal(mirror[answer[weight > 0]], other[weight > 0])
