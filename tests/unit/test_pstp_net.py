"""PSTP-Net: choices by brute force, fusion against layers written out, absence against a cut."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from unit.toy_pstp import CLIP, MAP, batch_of, changed, make, streams, vector

from dataset.types import AUDIO, VISUAL
from models.backbones.pstp_net import SegmentSelection, best
from models.layers.attention import Stream


def chosen(model, features):
    """The kept seconds (B, K) and the positions (B, K, m) of the patches kept in each."""
    frame, patches = model.split(features.visual)
    mask = torch.ones(frame.shape[:2], dtype=torch.bool)
    seconds, _ = model.perception.segments(features.question, Stream(features.audio, mask), Stream(frame, mask))
    regions = []
    for b in range(len(seconds)):
        rows = []
        for t in seconds[b]:
            weights = model.perception.regions.ranking(features.question[b:b + 1], Stream(patches[b, t][None]))
            rows.append(best(weights, model.perception.regions.top_m)[0])
        regions.append(torch.stack(rows))
    return seconds, torch.stack(regions)


# What is chosen.

def test_the_best_are_those_of_a_sort_in_their_order():
    """The best are those a sort of each row finds in their order."""
    weights = torch.rand(20, 9, generator=torch.Generator().manual_seed(1))
    for row, chosen in zip(weights.tolist(), best(weights, 4).tolist(), strict=True):
        assert chosen == sorted(sorted(range(9), key=lambda i, row=row: -row[i])[:4])
    assert best(torch.tensor([[0.5, 0.1, 0.5, 0.5]]), 2).tolist() == [[0, 2]]


def test_segments_are_ranked_as_by_the_library_attention():
    """Segments are ranked by the head averaged weights of a library attention."""
    torch.manual_seed(0)
    selection = SegmentSelection(16, segs=4, top_k=2).eval()
    question, audio, frame = streams()
    library = nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        library.in_proj_weight[:16] = selection.ranking.query.weight
        library.in_proj_weight[16:32] = selection.ranking.key.weight
        library.in_proj_bias[:16] = selection.ranking.query.bias
        seconds, share = selection(question, audio, frame)
    for b in range(3):
        pooled = [torch.cat([s.tokens[b, 2 * i:2 * i + 2].mean(0) for s in (audio, frame)]) for i in range(4)]
        candidates = selection.combine(torch.tanh(torch.stack(pooled)))[None]
        weights = library(question[b].view(1, 1, 16), candidates, candidates)[1][0, 0]
        kept = sorted(sorted(range(4), key=lambda i, w=weights: -w[i])[:2])
        assert seconds[b].tolist() == [2 * i + j for i in kept for j in range(2)]
        torch.testing.assert_close(share[b], torch.stack([4 * weights[i] for i in kept for _ in range(2)]))


def test_no_question_or_frame_is_ranked_by_another():
    model, batch = make(), batch_of(6)
    features = model.encode(batch)
    seconds, regions = chosen(model, features)
    assert len({tuple(row) for row in seconds.tolist()}) > 1
    assert len({tuple(row) for row in regions.flatten(0, 1).tolist()}) > 6
    for b in range(6):
        alone = chosen(model, features.rows(slice(b, b + 1)))
        assert torch.equal(alone[0][0], seconds[b]) and torch.equal(alone[1][0], regions[b])
    shuffled = features.with_(**{k: getattr(features, k).roll(1, 0) for k in ("audio", "visual", "question")})
    assert torch.equal(chosen(model, shuffled)[0], seconds.roll(1, 0))


def test_present_segments_come_first_and_fill_up_in_order():
    selection = SegmentSelection(16, segs=4, top_k=2).eval()
    mask = torch.zeros(3, 8, dtype=torch.bool)
    mask[0, 5] = True                                        # one second of segment 2 is all there is
    mask[1, 0], mask[1, 6:] = True, True                     # segments 0 and 3
    question, audio, frame = streams(mask=mask)
    seconds, share = selection(question, audio, frame)
    assert seconds.tolist() == [[0, 1, 4, 5], [0, 1, 6, 7], [0, 1, 2, 3]]
    assert share[0].tolist() == [0, 0, 1, 1] and share[2].tolist() == [0] * 4 and torch.isfinite(share).all()


def test_dropout_never_prefers_what_is_absent():
    """In training all heads of a segment may be dropped; an absent segment must still come behind
    it.
    """
    selection = SegmentSelection(16, segs=4, top_k=2).train()
    selection.ranking.heads, selection.ranking.dropout = 1, 0.9
    mask = torch.ones(64, 8, dtype=torch.bool)
    mask[:, :4] = False
    torch.manual_seed(0)
    seconds, share = selection(*streams(64, mask=mask))
    assert (share == 0).any() and seconds.tolist() == [[4, 5, 6, 7]] * 64


# What is fused.

def test_only_what_is_chosen_reaches_the_selected_tokens():
    """Literal selection: a patch not kept reaches nothing, such a second the global path."""
    model, batch = make(selection_gradient="none"), batch_of(4)
    features = model.encode(batch)
    seconds, regions = chosen(model, features)
    before = vector(model, features)
    for b in range(4):
        second = int(seconds[b, 0])
        for patch in range(6):
            visual = features.visual.clone()
            visual[b, second, 1 + patch] *= 1.001
            after = features.with_(visual=visual)
            assert torch.equal(chosen(model, after)[1], regions)
            kept = patch in regions[b, 0].tolist()
            assert changed(before, vector(model, after)).tolist() == [kept and i == b for i in range(4)]
    outside = [next(t for t in range(8) if t not in row) for row in seconds.tolist()]
    audio = features.audio.clone()
    audio[torch.arange(4), outside] *= 1.001
    after = features.with_(audio=audio)
    frame, patches = model.split(features.visual)
    mask = torch.ones(4, 8, dtype=torch.bool)
    kept = [model.perception.select(f.question, Stream(f.audio, mask), Stream(frame, mask), patches)
            for f in (features, after)]
    assert torch.equal(chosen(model, after)[0], seconds)
    assert torch.equal(kept[0][0].tokens, kept[1][0].tokens) and torch.equal(kept[0][1].tokens, kept[1][1].tokens)
    assert changed(before, vector(model, after)).all()
    visual = features.visual.clone()
    visual[torch.arange(4), outside, 1:] *= 100              # patches of seconds not kept are read by nothing
    assert torch.equal(before, vector(model, features.with_(visual=visual)))


def test_the_documented_tokens_are_fused():
    """What is fused are the documented tokens at the published sizes."""
    spec = replace(CLIP, segments=60, grid=(50, 1))
    model, batch, seen = make(spec, text="clip"), batch_of(1, spec), []
    batch = replace(batch, text_words=torch.randn(1, 77, 10))
    model.fusion.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].tokens.shape))
    vector(model, model.encode(batch))
    assert seen == [(1, (10 + 60 + 60) + (10 + 250 + 10 + 60 + 60) + 77, 16)]


@pytest.mark.parametrize("part", ["segments", "regions", "guided", "whole"])
def test_switching_a_module_off_changes_the_answer(part, monkeypatch):
    model, batch = make(selection_gradient="none"), batch_of(4)
    features = model.encode(batch)
    before = vector(model, features)
    perception = model.perception
    if part == "segments":           # the first segments instead of the best
        first = torch.arange(4).expand(4, 4), torch.ones(4, 4)
        monkeypatch.setattr(perception.segments, "forward", lambda *_: first)
    if part == "regions":
        monkeypatch.setattr(perception.regions, "forward", lambda q, p: (p[:, :, :3], torch.ones(4, 4, 3)))
    if part == "guided":
        monkeypatch.setattr(perception.guided, "forward", lambda audio, regions: audio * 0)
    if part == "whole":
        perception.whole = nn.ModuleList()
    assert changed(before, vector(model, features)).any()


def test_moving_the_attention_moves_the_answer():
    """Other ranking weights alone: in the literal variant they act through the choice only."""
    model, batch = make(selection_gradient="none"), batch_of(4)
    features = model.encode(batch)
    before, first = vector(model, features), chosen(model, features)
    for ranking in (model.perception.segments.ranking, model.perception.regions.ranking):
        with torch.no_grad():
            ranking.key.weight.neg_()
        after, then = vector(model, features), chosen(model, features)
        moved = (first[0] != then[0]).any(1) | (first[1] != then[1]).flatten(1).any(1)
        assert moved.any() and torch.equal(changed(before, after), moved)
        with torch.no_grad():
            ranking.key.weight.neg_()


def test_the_global_path_against_its_layers():
    """The global path is each stream by the other and itself the frame by the updated sound."""
    model = make()
    question, audio, frame = streams()
    with torch.no_grad():
        fused = model.perception(question, audio, frame, torch.randn(3, 8, 6, 16))
        x, y = audio.tokens, frame.tokens
        for layer in model.perception.whole:
            for _ in range(2):                               # first the audio, then, exchanged, the frame
                attended = layer.cross(x, y, y)[0] + layer.own(x, x, x)[0]
                x = F.layer_norm(x + attended, (16,))        # the norms' own scale and shift are still 1 and 0
                x = F.layer_norm(x + layer.rest.feed_forward(x), (16,))
                x, y = y, x
    torch.testing.assert_close(fused[0].tokens[:, 4:12], x)  # after the four kept seconds
    torch.testing.assert_close(fused[1].tokens[:, 4 + 4 * 3 + 4:][:, :8], y)


def test_padding_is_not_fused():
    model, batch = make(), batch_of(2)
    batch.words[:] = torch.tensor([3, 7, 2, 0, 0])
    features = model.encode(batch)
    before = vector(model, features)
    features.words[:, 3:] += 10
    assert torch.equal(before, vector(model, features))
    features.words[:, 2] += 10
    assert changed(before, vector(model, features)).all()


@pytest.mark.parametrize("gradient", ["weighted", "none"])
def test_only_the_weighted_selection_trains_what_selects(gradient):
    model = make(selection_gradient=gradient).train()
    model.fuse(model.encode(batch_of(3))).vector.sum().backward()
    selecting = {k: p for k, p in model.named_parameters() if ".segments." in k or ".regions." in k}
    assert {k.split(".")[-3] for k in selecting} == {"segments", "ranking"}
    for name, parameter in model.named_parameters():
        frozen = gradient == "none" and name in selecting
        assert parameter.requires_grad != frozen
        assert (parameter.grad is None) == frozen, name
        assert frozen or parameter.grad.abs().sum() > 0, name


def test_uniform_weights_fuse_as_the_literal_selection():
    """Shares average 1: with equal attention both variants fuse the same tokens."""
    models = [make(selection_gradient=g) for g in ("weighted", "none")]
    for model in models:
        for ranking in (model.perception.segments.ranking, model.perception.regions.ranking):
            nn.init.zeros_(ranking.key.weight)
    features = models[0].encode(batch_of(2))
    torch.testing.assert_close(vector(models[0], features), vector(models[1], features))


def test_released_is_one_self_attention_layer():
    """Released is the mean of one self attention layer times the question."""
    model, batch = make(variant="released", text="clip"), batch_of(3)
    features = model.encode(batch)
    fused, state = vector(model, features), {k: v.detach() for k, v in model.fusion.state_dict().items()}

    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x, i):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * state[f"rest.norms.{i}.weight"] + state[f"rest.norms.{i}.bias"]

    for b in range(3):
        audio = batch.audio[b] @ model.audio.weight.T + model.audio.bias
        frame = batch.visual[b, :, :, 0, 0] @ model.frame.weight.T + model.frame.bias
        words = batch.text_words[b] @ model.clip.word.weight.T + model.clip.word.bias
        x = torch.cat([audio, frame, words])                                        # (8 + 8 + 9, 16)
        q, k, v = (x @ state["attention.in_proj_weight"].T + state["attention.in_proj_bias"]).chunk(3, dim=-1)
        x = norm(x + linear(F.softmax(q @ k.T / 4, dim=-1) @ v, "attention.out_proj"), 0)
        x = norm(x + linear(linear(x, "rest.feed_forward.0").relu(), "rest.feed_forward.3"), 1)
        question = batch.text_question[b] @ model.clip.question.weight.T + model.clip.question.bias
        torch.testing.assert_close(fused[b], torch.tanh(x.mean(0) * question), atol=1e-5, rtol=1e-4)


def test_released_builds_nothing_without_effect():
    """Released builds nothing without effect and reads no patch."""
    model, batch = make(variant="released", text="clip").train(), batch_of(3)
    model.fuse(model.encode(batch)).vector.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert model.perception is None and model.patch is None and model.reader is None
    model.eval()
    before = vector(model, model.encode(batch))
    batch.visual[:, :, :, 1:] += 5
    assert torch.equal(before, vector(model, model.encode(batch)))


# What is absent.

@pytest.mark.parametrize("spec", [CLIP, MAP])
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_masked_segments_are_as_if_cut_out(spec, variant):
    """Two of the four segments of two seconds are absent, and the same model reads the other four
    seconds alone.
    """
    model = make(spec, variant=variant)
    features = model.encode(batch_of(3, spec))
    there = torch.tensor([False, False, True, True, True, True, False, False])
    masked = features.with_(presence=there.view(1, 8, 1).expand(3, 8, 2), filled=False)
    for stream in (masked.audio, masked.visual):
        stream[:, ~there] = 1e4                              # nothing may be read there
    cut = features.with_(audio=features.audio[:, there], visual=features.visual[:, there],
                         presence=masked.presence[:, there])
    if variant == "paper":
        other = make(replace(spec, segments=4))
        other.perception.segments.top_k = 2                  # as many as of eight seconds
        other.load_state_dict(model.state_dict())
    else:
        other = model
    fused, expected = model.fuse(masked), other.fuse(cut)
    torch.testing.assert_close(fused.vector, expected.vector)
    torch.testing.assert_close(fused.summaries, expected.summaries)


@pytest.mark.parametrize("modality", [AUDIO, VISUAL])
def test_an_absent_stream_leaves_the_other_alone(modality):
    """An absent stream leaves zeros for a summary and the other one alone."""
    model = make()
    features = model.encode(batch_of(2))
    presence = features.presence.clone()
    presence[..., modality] = False
    absent = features.with_(presence=presence, filled=False)
    before = model.fuse(absent)
    assert not before.summaries[modality].any() and before.summaries[1 - modality].all()
    stream = absent.audio if modality == AUDIO else absent.visual
    stream += torch.randn(stream.shape) * 10
    torch.testing.assert_close(model.fuse(absent).vector, before.vector)


def test_prompts_are_read_by_every_attention_over_a_stream():
    model = make().train()
    features = model.encode(batch_of(2))
    names = [f"{stream}_{part}" for stream in ("audio", "visual") for part in ("keys", "values")]
    prompts = {name: torch.randn(2, 3, 16, requires_grad=True) for name in names}
    model.fuse(features.with_(**prompts)).vector.sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in prompts.values())
    before = vector(make(variant="released"), features)      # there the fusion is the only attention
    assert changed(before, vector(make(variant="released"), features.with_(**prompts))).all()
    model.eval()
    question, audio, frame = streams()
    plain = model.perception.segments(question, audio, frame)[1]
    extra = torch.randn(3, 3, 16), torch.randn(3, 3, 16)
    prompted = model.perception.segments(question, audio, frame._replace(extra=extra))[1]
    assert (prompted.sum(1) < 4).all() and not torch.allclose(plain, prompted)
    layer = model.perception.whole[0]
    for changed_stream in ((audio, frame._replace(extra=extra)), (audio._replace(extra=extra), frame)):
        assert not torch.allclose(layer(audio, frame).tokens, layer(*changed_stream).tokens)
