"""Scenarios: who loses what, and that it depends on the question alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset.presence import SCENARIOS, Scenario
from dataset.types import AUDIO, VISUAL


@pytest.mark.parametrize("name,audio,visual", [
    ("complete", True, True), ("audio_missing", False, True), ("visual_missing", True, False),
    ("both_missing", False, False),
])
def test_whole_modalities(name, audio, visual):
    for row in range(20):
        presence = SCENARIOS[name].presence(row, 5)
        assert (presence[:, AUDIO] == audio).all() and (presence[:, VISUAL] == visual).all()


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 10_000), st.integers(1, 20))
def test_a_larger_ratio_hits_all_that_a_smaller_one_hits(a, b, row, segments):
    small, large = (Scenario("s", "audio", ratio=r).presence(row, segments) for r in sorted((a, b)))
    assert (large <= small).all() and (small[:, VISUAL]).all()


def test_the_ratio_is_the_share_of_questions_hit():
    scenario = Scenario("s", "visual", ratio=0.3)
    hit = [not scenario.presence(row, 4)[:, VISUAL].any() for row in range(4000)]
    assert abs(np.mean(hit) - 0.3) < 0.03


@given(st.floats(0, 1), st.integers(0, 10_000), st.integers(1, 20))
def test_a_share_of_segments_is_lost_and_always_the_same_ones(share, row, segments):
    scenario = Scenario("s", "both", segments=share)
    presence = scenario.presence(row, segments)
    lost = (~presence[:, AUDIO]).sum()
    assert abs(lost - share * segments) <= 0.5 + 1e-9 or (lost == 1 and share > 0)
    assert (lost == 0) == (share == 0)
    assert (presence[:, AUDIO] == presence[:, VISUAL]).all()
    assert (presence == scenario.presence(row, segments)).all()


@given(st.sampled_from(["audio", "visual"]), st.integers(0, 10_000), st.integers(1, 20))
def test_a_run_of_segments_is_lost_in_a_row(modality, row, segments):
    """One, half of them (halves up), all but one; always the same ones; the other side stays."""
    column, other = (AUDIO, VISUAL) if modality == "audio" else (VISUAL, AUDIO)
    for name, count in (("second", 1), ("half", -(-segments // 2)), ("all_but_one", segments - 1)):
        presence = SCENARIOS[f"{modality}_{name}"].presence(row, segments)
        lost = np.flatnonzero(~presence[:, column])
        assert len(lost) == count and (np.diff(lost) == 1).all() and presence[:, other].all()
        assert (presence == SCENARIOS[f"{modality}_{name}"].presence(row, segments)).all()


def test_a_run_may_lie_anywhere():
    """Over questions its first segment is uniform: of 6 - 3 + 1 places each with a quarter."""
    first = [int(np.flatnonzero(~SCENARIOS["audio_half"].presence(row, 6)[:, AUDIO])[0]) for row in range(4000)]
    assert np.abs(np.bincount(first, minlength=4) / 4000 - 0.25).max() < 0.03
