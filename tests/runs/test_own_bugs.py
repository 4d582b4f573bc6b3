"""A bug in a component of one's own keeps its traceback; only refused options become one line."""

import pytest

from models.backbones.avst import AVST
from models.errors import OptionError


def fail_with(error):
    def constructor(*_, **__):
        raise error
    return constructor


@pytest.mark.parametrize("error", [ValueError("a bug"), TypeError("a bug"), KeyError("a bug")])
def test_a_bug_in_a_constructor_keeps_its_traceback(error, small, in_process, monkeypatch):
    monkeypatch.setattr("models.backbones.avst.QuestionLSTM", fail_with(error))
    with pytest.raises(type(error), match="a bug"):
        in_process("main_train.py", *small)


def test_a_bug_in_a_training_step_keeps_its_traceback(small, in_process, monkeypatch):
    monkeypatch.setattr(AVST, "fuse", fail_with(ValueError("a bug")))
    with pytest.raises(ValueError, match="a bug"):
        in_process("main_train.py", *small)


def test_a_refused_option_is_one_line(small, in_process, monkeypatch):
    monkeypatch.setattr("models.backbones.avst.QuestionLSTM", fail_with(OptionError("backbone.heads=5 is odd")))
    code, _, err = in_process("main_train.py", *small)
    assert code == 2 and err.splitlines()[-1] == "error: backbone.heads=5 is odd"
