"""Missing-aware prompts: which case reads which, what is trained, and that no more is added."""

import pytest
import torch
from toy import SHAPE, SPEC, random_batch, random_features, unweighted

from dataset.types import AUDIO, VISUAL, Batch
from models.avqa import AVQAModel
from models.backbones.avst import AVST
from models.heads import OpenVocabulary
from models.methods.plain import Plain
from models.methods.prompts import MissingAwarePrompts, cases

COMPLETE, NO_AUDIO, NO_VISUAL = range(3)
VIEWS = {"complete": COMPLETE, "audio_missing": NO_AUDIO, "visual_missing": NO_VISUAL}


def build(method=None, seed: int = 0) -> AVQAModel:
    torch.manual_seed(seed)
    backbone, head = AVST(SPEC), OpenVocabulary(SPEC.visual_channels, SPEC.answers)
    return AVQAModel(backbone, method or MissingAwarePrompts(SHAPE), head)


def trained() -> AVQAModel:
    """As after training: prompts of which no two rows are alike."""
    model = build()
    torch.nn.init.normal_(model.method.prompts)
    return model


def with_presence(batch: Batch, question: int, audio=slice(0), visual=slice(0)) -> Batch:
    """`batch` in which one question lacks these segments."""
    batch.presence[question, audio, AUDIO] = False
    batch.presence[question, visual, VISUAL] = False
    return batch


@torch.no_grad()
def logits(model: AVQAModel, batch: Batch) -> torch.Tensor:
    return model.eval()(batch).logits["complete"]


def test_each_stream_reads_the_prompts_of_what_is_missing():
    presence = torch.ones(6, 4, 2, dtype=torch.bool)
    presence[1, :, AUDIO] = presence[2, :, VISUAL] = presence[3] = False
    presence[4, 2, AUDIO] = False                                      # a single segment is enough
    presence[5, 0, AUDIO] = presence[5, 3, VISUAL] = False             # neither is whole: as if both were missing
    audio, visual = cases(presence)
    assert audio.tolist() == [COMPLETE, NO_AUDIO, NO_VISUAL, NO_AUDIO, NO_AUDIO, NO_AUDIO]
    assert visual.tolist() == [COMPLETE, NO_AUDIO, NO_VISUAL, NO_VISUAL, NO_AUDIO, NO_VISUAL]


@pytest.mark.parametrize("stream", [AUDIO, VISUAL])
@pytest.mark.parametrize("case", VIEWS.values())
def test_the_prompts_of_a_case_change_its_logits_only(stream, case):
    """The prompts of one case change the logits of that case only."""
    model = trained()
    batch = with_presence(with_presence(random_batch(3), 1, audio=slice(4)), 2, visual=slice(4))
    before = logits(model, batch)
    with torch.no_grad():
        model.method.prompts[stream, case] = torch.randn(model.method.prompts[stream, case].shape)
    changed = (logits(model, batch) != before).any(dim=1)
    assert changed.tolist() == [case == i for i in range(3)]


def test_without_prompts_the_backbone_answers_as_before():
    """Without prompts the frozen backbone gives its own logits."""
    model, plain, batch = trained(), build(Plain(SHAPE)), random_batch(4)
    expected, prompted = logits(plain, batch), logits(model, batch)
    assert not torch.allclose(prompted, expected)
    with torch.no_grad():
        features = model.method.fill_in(model.backbone.encode(batch))
        without = features.with_(audio_keys=None, audio_values=None, visual_keys=None, visual_values=None)
        assert torch.equal(model.answer(without, batch, None)[1].logits, expected)


def test_every_token_is_a_key_and_a_value():
    method = trained().method
    prompted = method.fill_in(random_features(2))
    for stream in (AUDIO, VISUAL):
        keys, values = prompted.extra(stream)
        assert torch.equal(keys, values) and keys.shape == (2, 16, 16)
        assert torch.equal(keys[0], method.prompts[stream, COMPLETE])


def test_the_start_is_zeros_and_a_row_of_ones():
    """The start is zeros and a row of ones that tells the cases apart."""
    prompts = MissingAwarePrompts(SHAPE).prompts
    for stream in prompts:
        assert [case.sum(dim=-1).nonzero().flatten().tolist() for case in stream] == [[0], [2], [1]]
    assert prompts.max() == 1


def test_prompts_alone_are_attended_where_a_modality_is_missing():
    """With prompts that are all one token, attention over them is that token whatever is asked."""
    model = trained()
    token = torch.randn(SPEC.visual_channels)
    with torch.no_grad():
        model.method.prompts[AUDIO, NO_AUDIO] = token
    batch = with_presence(random_batch(2), 0, audio=slice(4))
    block = model.backbone.eval().temporal_audio
    features = model.backbone.encode(batch)
    summary = model.backbone.fuse(model.method.fill_in(features)).summaries[AUDIO][0]
    value = block.attention.in_proj_weight[2 * len(token):] @ token + block.attention.in_proj_bias[2 * len(token):]
    attended = block.attention.out_proj(value)
    torch.testing.assert_close(summary, block.norm(attended + block.feed_forward(attended)))


def test_partial_absence_reads_what_is_left():
    """Partial absence reads the segments that are left and the missing prompts."""
    model = trained()
    batch = with_presence(random_batch(2), 0, audio=slice(1, 3))
    before = logits(model, batch)
    absent, present = random_batch(2), random_batch(2)
    absent.audio[0, 1:3], present.audio[0, 3] = 9.0, 9.0
    assert torch.equal(logits(model, with_presence(absent, 0, audio=slice(1, 3))), before)
    assert not torch.equal(logits(model, with_presence(present, 0, audio=slice(1, 3)))[0], before[0])
    with torch.no_grad():
        model.method.prompts[:, NO_AUDIO] += 1
    assert (logits(model, batch) != before).any(dim=1).tolist() == [True, False]


def step(model: AVQAModel, batch: Batch, optimiser) -> None:
    optimiser.zero_grad()
    unweighted(model.train(), batch).backward()
    optimiser.step()


def test_a_step_changes_prompts_combination_and_head_only():
    model = build()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    step(model, random_batch(5), torch.optim.Adam(model.parameters(), lr=1e-2))
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    trained = [f"{layer}.{p}" for layer in ("backbone.fusion", "head.answer") for p in ("weight", "bias")]
    assert changed == {"method.prompts", *trained} and model.method.needs_trained_backbone


def test_all_views_train_every_prompt():
    """Every prompt of every stream and case is trained in each step with all views."""
    model = build()
    for _ in range(2):
        before = model.method.prompts.detach().clone()
        step(model, random_batch(5), torch.optim.SGD(model.parameters(), lr=1.0))
    moved = (model.method.prompts.detach() != before).any(dim=-1)      # (2, 3, P)
    assert moved.all()


def test_dropout_sets_equal_rows_apart():
    """Rows that start alike are set apart by the dropout of attention."""
    for dropout, apart in ((0.1, True), (0.0, False)):
        model = build()
        for block in (model.backbone.temporal_audio, model.backbone.temporal_visual):
            block.attention.dropout = dropout
        for _ in range(3):
            step(model, random_batch(5), torch.optim.SGD(model.parameters(), lr=1.0))
        rows = model.method.prompts[AUDIO, NO_AUDIO, 3:]               # zeros at the start
        assert (torch.pdist(rows).max() > 1e-4) == apart and rows.any()


def test_views_say_what_is_real_and_that_nothing_stands_in():
    valid = torch.ones(3, dtype=torch.bool)
    features = random_features(3).with_(negative=torch.zeros(3, 4, 6, 16), negative_valid=valid)
    views = MissingAwarePrompts(SHAPE).views(features)
    assert list(views.features) == list(VIEWS) and views.losses == {}
    for name, view in views.features.items():
        assert not view.filled and view.negative_valid.all() == (name == "complete")
    assert not views.features["audio_missing"].audio.any() and not views.features["visual_missing"].visual.any()
