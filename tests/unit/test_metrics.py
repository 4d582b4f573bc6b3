"""Accuracy per type, modality and overall from records, by hand."""

import pytest

from dataset.music_avqa import MusicAVQA
from engine.metrics import Record, by_source, calibration, notes, summarise, table


def record(row: int, type_: str, right: bool) -> Record:
    return Record(row, row, "v", type_, "complete", "yes" if right else "no", "yes", 0.5)


RECORDS = [record(0, "Audio/Counting", True), record(1, "Audio/Counting", False), record(2, "Audio/Comparative", True),
           record(3, "Visual/Location", False)]
FLOOR = {0: False, 1: False, 2: True, 3: True}


def test_averages_are_over_questions_not_over_types():
    result = summarise(RECORDS, FLOOR, {0: True, 1: True, 2: True, 3: False})
    assert (result["overall"], result["n"]) == (50.0, 4)
    assert result["by_type"]["Audio/Counting"] == {"accuracy": 50.0, "n": 2}
    assert result["by_modality"]["Audio"] == {"accuracy": 100 * 2 / 3, "n": 3}
    assert (result["question_only_floor"], result["oracle"]) == (50.0, 75.0)


def test_order_of_records_does_not_matter():
    assert summarise(RECORDS[::-1], FLOOR, None) == summarise(RECORDS, FLOOR, None)


def test_the_table_puts_every_figure_under_its_name():
    header, _, model, floor = table({"complete": summarise(RECORDS, FLOOR, None)}).splitlines()
    columns = {name: header.index(name) + len(name) for name in ("A Cnt", "A Avg", "V Loc", "AV Loc", "All Avg")}
    cell = {name: model[:end].split()[-1] for name, end in columns.items()}
    assert cell == {"A Cnt": "50.0", "A Avg": "66.7", "V Loc": "0.0", "AV Loc": "-", "All Avg": "50.0"}
    assert "floor" in floor


def test_real_and_synthetic_videos_are_counted_apart():
    videos = {"00000093": True, "00009999": False, "va00003871": True, "esa00000001": True, "evv00000001": False,
              "my_clip": False, "vacation01": True}
    records = [Record(i, i, v, "Audio/Counting", "complete", "yes" if right else "no", "yes", 0.5)
               for i, (v, right) in enumerate(videos.items())]
    accuracies = by_source(records, MusicAVQA.source)
    assert accuracies == {"real": {"accuracy": 50.0, "n": 2}, "synthetic": {"accuracy": 100 * 2 / 3, "n": 3}}
    assert by_source(records[5:], MusicAVQA.source) == {}


def test_types_without_a_modality_have_columns_of_their_own():
    records = [record(0, "Used For", True), record(1, "Which", True), record(2, "Which", False)]
    result = summarise(records, dict.fromkeys(range(3), False), None)
    assert result["by_modality"] == {} and result["question_only_floor_by_type"] == {"Used For": 0.0, "Which": 0.0}
    header, _, model, _ = table({"complete": result}).splitlines()
    names = ("Which", "Come From", "Happening", "Where", "Why", "Before Next", "When", "Used For", "All")
    ends = [header.index(f" {name} ") + len(name) + 1 for name in names[:-1]] + [len(header)]
    assert ends == sorted(ends)
    assert [model[:end].split()[-1] for end in ends] == ["50.0", *["-"] * 6, "100.0", "66.7"]


def test_doubtful_results_are_named():
    """Complete 50, audio missing 75; the floor of both is 60."""
    cell = {"question_only_floor": 60.0}
    lines = notes({"complete": {"overall": 50.0, **cell}, "audio_missing": {"overall": 75.0, **cell}}, [], [])
    assert len(lines) == 2 and "complete (50.0) lies below the question-only floor (60.0)" in lines[0]
    assert "audio_missing (75.0) scores above complete input (50.0)" in lines[1]
    assert notes({"complete": {"overall": 75.0, **cell}, "audio_missing": {"overall": 70.0, **cell}}, [], []) == []


def test_calibration_error_by_hand():
    """Ten answers at 0.9, seven right, and ten at 0.5, five right: half of |0.9 - 0.7|."""
    answers = [(sure, i < right) for sure, right in ((0.9, 7), (0.5, 5)) for i in range(10)]
    assert calibration(answers) == pytest.approx(10.0, abs=1e-4)
