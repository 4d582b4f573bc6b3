"""The losses of a step, by term and view, in TensorBoard and in metrics.jsonl."""

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.logger import LossLog


def steps(nested):
    """Three steps of two terms, of which one has two views."""
    for step in (1.0, 2.0, 6.0):
        answer, ave = torch.tensor(step, requires_grad=True), torch.tensor(10 * step)
        if nested:
            yield {"total": ave, "answer": {"complete": answer, "audio_missing": 2 * answer}, "ave": {"": ave}}
        else:
            yield {"total": ave, "answer_complete": answer, "answer_audio_missing": 2 * answer, "ave": ave}


@pytest.mark.parametrize("nested", [True, False])
def test_means_are_named_as_in_the_files(tmp_path, nested):
    log = LossLog(tmp_path, every=2)
    points = [log.add(terms, step, 0.1) for step, terms in enumerate(steps(nested), 1)]
    assert points[0] is None and points[2] is None
    assert points[1] == {"total": 15.0, "answer_complete": 1.5, "answer_audio_missing": 3.0, "ave": 15.0}
    assert log.end_epoch(3) == {"total": 30.0, "answer_complete": 3.0, "answer_audio_missing": 6.0, "ave": 30.0}
    log.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    answers = {"loss/answer/complete", "loss/answer/audio_missing"} if nested else \
        {"loss/answer_complete", "loss/answer_audio_missing"}
    assert set(events.Tags()["scalars"]) == answers | {"loss/total", "loss/ave", "learning_rate", "seconds_per_step"}
    assert [p.value for p in events.Scalars("loss/ave")] == [15.0, 60.0]
