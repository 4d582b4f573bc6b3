"""The tables of a diagnosis over the seeds of a row."""

from scripts.study.diagnosis_tables import as_markdown


def run(accuracy: float, r2: float | None, steps: dict) -> dict:
    cells = {"all": {"n": 4, "r2": r2, "spread": 0.5}, "Counting": {"n": 4, "r2": r2, "spread": 0.5}}
    same = {"all": {"n": 4, "r2": 1, "spread": 1.0}}
    sharp = {"entropy": 0.5, "effective_slots": 3.0, "largest_weight_times_slots": 2.0}
    return {"answers": {"complete": {"accuracy": accuracy, "ece": 4.0}},
            "features": {"audio_missing": {"stages": {"recalled": {"audio": cells, "visual": same}},
                                           "addressing": sharp}},
            "by_steps": {"audio_missing": steps}}


def test_seeds_are_averaged_and_what_was_present_is_left_out():
    page = as_markdown({"ours": [run(70.0, 0.2, {"1": 50.0, "2": 60.0}), run(74.0, -0.4, {"1": 52.0, "2": 60.0})],
                        "other": [run(10.0, None, {"1": 5.0})]})
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    assert ["ours", "complete", "72.0 ± 2.8", "4.0 ± 0.0"] in rows         # stdev of 70 and 74 is 4 / sqrt(2)
    assert ["ours", "audio_missing", "recalled", "audio", "\N{MINUS SIGN}0.100 ± 0.424", "0.500 ± 0.000"] in rows
    assert ["other", "audio_missing", "recalled", "audio", "-", "0.500"] in rows
    assert ["ours", "audio_missing", "recalled", "audio", "Counting", "\N{MINUS SIGN}0.100 ± 0.424"] in rows
    assert ["ours", "audio_missing", "51.0 ± 1.4", "60.0 ± 0.0"] in rows
    assert ["other", "audio_missing", "5.0", ""] in rows
    assert not any("visual" in row for row in rows)


def test_a_feature_that_is_far_off_is_written_without_decimals():
    assert "−1500000 ± 707107 " in as_markdown({"x": [run(1.0, -1e6, {}), run(1.0, -2e6, {})]})


def test_what_overflowed_is_not_finite():
    assert "| not finite " in as_markdown({"x": [run(1.0, float("-inf"), {}), run(1.0, 0.0, {})]})
