"""A method's YAML may name the scenarios that choose its checkpoint."""

import pytest

from engine.config import compose
from models import METHODS

ALL = ["complete", "audio_missing", "visual_missing"]


@pytest.mark.parametrize("method", METHODS)
def test_only_plain_is_chosen_by_complete_input(method):
    expected = ["complete"] if method == "plain" else ALL
    for files in (None, "configs/embedded.yaml", "configs/paper.yaml"):
        config = compose(files, [f"method={method}", "dataset=synthetic"])
        assert config["train"]["select_by"] == expected
        assert config["evaluate"]["scenarios"] == ALL


def test_a_file_and_an_override_win_over_the_methods_own(tmp_path):
    """As the layers stand: defaults, the data's, the method's, files, overrides."""
    file = tmp_path / "mine.yaml"
    file.write_text("method: plain\ntrain: {select_by: [audio_missing]}\n")
    assert compose(str(file), [])["train"]["select_by"] == ["audio_missing"]
    assert compose(str(file), ["train.select_by=[visual_missing]"])["train"]["select_by"] == ["visual_missing"]
    for config in (compose(str(file), []), compose(None, ["method=prompts"])):
        assert config["train"]["batch_size"] == 64


def test_a_method_that_is_exchanged_leaves_no_selection_behind():
    assert compose("configs/embedded_plain.yaml", ["method=rmm_avr"])["train"]["select_by"] == ALL
