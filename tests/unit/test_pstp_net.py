"""PSTP-Net: its choices against brute force, its fusion against layers written out, absence against a cut."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from commands import ROOT, write_dataset
from torch import nn
from torch.nn import functional as F
from toy import random_batch

from dataset import make_loader
from dataset.music_avqa import MusicAVQA
from dataset.types import AUDIO, VISUAL, DataSpec
from engine.config import compose
from models import build_model
from models.backbones.pstp_net import PSTPNet, SegmentSelection, Sizes, Stream, best, resolve_sizes, segment_count
from models.errors import OptionError

# Eight seconds in four segments; seven tokens per second, the first of them the frame.
CLIP = DataSpec(segments=8, audio_channels=6, visual_channels=16, grid=(7, 1), words=5, vocabulary=11, answers=7,
                frame_token=True, text_channels=10)
MAP = replace(CLIP, grid=(2, 3), frame_token=False)


def make(spec=CLIP, **options) -> PSTPNet:
    torch.manual_seed(0)
    return PSTPNet(spec, **options).eval()


def batch_of(size, spec=CLIP, seed=0):
    """Features of both signs and a CLIP question, as they are read."""
    g = torch.Generator().manual_seed(seed)
    batch = random_batch(size, seed, spec)
    return replace(batch, visual=torch.randn(batch.visual.shape, generator=g) * 2,
                   text_words=torch.randn(size, 9, 10, generator=g), text_question=torch.randn(size, 10, generator=g))


def streams(size=3, seed=0, mask=None):
    g = torch.Generator().manual_seed(seed)
    everything = torch.ones(size, 8, dtype=torch.bool)
    audio, frame = (torch.randn(size, 8, 16, generator=g) for _ in range(2))
    mask = everything if mask is None else mask
    return torch.randn(size, 16, generator=g), Stream(audio, mask), Stream(frame, mask)


def chosen(model, features):
    """The seconds (B, K) and, per kept second, the positions (B, K, m) of the patches that `model` keeps."""
    frame, patches = model.split(features.visual)
    mask = torch.ones(frame.shape[:2], dtype=torch.bool)
    seconds, _ = model.perception.segments(features.question, Stream(features.audio, mask), Stream(frame, mask))
    regions = []
    for b in range(len(seconds)):
        rows = []
        for t in seconds[b]:
            candidates = Stream(patches[b, t][None], torch.ones(1, patches.shape[2], dtype=torch.bool))
            weights = model.perception.regions.ranking(features.question[b:b + 1], candidates)
            rows.append(best(weights, model.perception.regions.top_m)[0])
        regions.append(torch.stack(rows))
    return seconds, torch.stack(regions)


def vector(model, features):
    with torch.no_grad():
        return model.fuse(features).vector


def changed(before, after):
    return (before - after).abs().amax(dim=1) > 1e-6


# What is chosen.

def test_the_best_are_those_a_sort_of_each_row_finds_in_their_order():
    weights = torch.rand(20, 9, generator=torch.Generator().manual_seed(1))
    for row, found in zip(weights.tolist(), best(weights, 4).tolist(), strict=True):
        assert found == sorted(sorted(range(9), key=lambda i, row=row: -row[i])[:4])
    assert best(torch.tensor([[0.5, 0.1, 0.5, 0.5]]), 2).tolist() == [[0, 2]]


def test_segments_are_ranked_by_the_head_averaged_weights_of_a_library_attention():
    torch.manual_seed(0)
    selection = SegmentSelection(16, heads=4, dropout=0.0, segs=4, top_k=2)
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
    selection = SegmentSelection(16, heads=4, dropout=0.0, segs=4, top_k=2)
    mask = torch.zeros(3, 8, dtype=torch.bool)
    mask[0, 5] = True                                        # one second of segment 2 is all there is
    mask[1, 0], mask[1, 6:] = True, True                     # segments 0 and 3
    question, audio, frame = streams(mask=mask)
    seconds, share = selection(question, audio, frame)
    assert seconds.tolist() == [[0, 1, 4, 5], [0, 1, 6, 7], [0, 1, 2, 3]]
    assert share[0].tolist() == [0, 0, 1, 1] and share[2].tolist() == [0] * 4 and torch.isfinite(share).all()


def test_dropout_never_prefers_what_is_absent():
    """In training all heads of a segment may be dropped; an absent segment must still come behind it."""
    selection = SegmentSelection(16, heads=1, dropout=0.9, segs=4, top_k=2).train()
    mask = torch.ones(64, 8, dtype=torch.bool)
    mask[:, :4] = False
    torch.manual_seed(0)
    seconds, share = selection(*streams(64, mask=mask))
    assert (share == 0).any() and seconds.tolist() == [[4, 5, 6, 7]] * 64


# What is fused.

def test_only_what_is_chosen_reaches_the_selected_tokens():
    """Literal selection: a patch that is not kept reaches nothing, a second that is not kept the global path alone."""
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


def test_what_is_fused_are_the_documented_tokens_at_the_published_sizes():
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
        monkeypatch.setattr(perception.guided, "forward", lambda audio, tokens: (audio * 0, None))
    if part == "whole":
        perception.whole = nn.ModuleList()
    assert changed(before, vector(model, features)).any()


def test_moving_the_attention_moves_the_answer():
    """Other ranking weights, nothing else: in the literal variant they can act through the choice alone."""
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


def test_the_global_path_is_each_stream_by_the_other_and_itself_the_frame_by_the_updated_sound():
    model = make(num_layers=2)
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


def test_weights_near_uniform_leave_the_tokens_as_the_literal_selection_has_them():
    """Shares average 1: with equal attention both variants fuse the same tokens."""
    models = [make(selection_gradient=g) for g in ("weighted", "none")]
    for model in models:
        for ranking in (model.perception.segments.ranking, model.perception.regions.ranking):
            nn.init.zeros_(ranking.key.weight)
    features = models[0].encode(batch_of(2))
    torch.testing.assert_close(vector(models[0], features), vector(models[1], features))


def test_released_is_the_mean_of_one_self_attention_layer_times_the_question():
    model, batch = make(variant="released", text="clip"), batch_of(3)
    features = model.encode(batch)
    found, state = vector(model, features), {k: v.detach() for k, v in model.fusion.state_dict().items()}

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
        torch.testing.assert_close(found[b], torch.tanh(x.mean(0) * question), atol=1e-5, rtol=1e-4)


def test_released_builds_nothing_without_effect_and_reads_no_patch():
    model, batch = make(variant="released", text="clip").train(), batch_of(3)
    model.fuse(model.encode(batch)).vector.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert model.perception is None and model.patch is None and model.reader is None
    model.eval()
    before = vector(model, model.encode(batch))
    batch.visual[:, :, :, 1:] += 5
    assert torch.equal(before, vector(model, model.encode(batch)))


def test_the_frame_of_a_plain_map_is_the_mean_of_its_tokens():
    model, batch = make(MAP), batch_of(2, MAP)
    frame, patches = model.split(model.encode(batch).visual)
    assert model.frame is None and patches.shape == (2, 8, 6, 16)
    torch.testing.assert_close(frame, model.patch(batch.visual.mean(dim=(3, 4))))


def test_parameters_of_the_run_configuration_at_the_published_size():
    config = compose(str(ROOT / "configs/music_avqa_clip.yaml"), [])
    assert (config["dataset"]["stride"], config["dataset"]["visual_layout"]) == (1, "cls_first")
    spec = DataSpec(segments=60, audio_channels=128, visual_channels=512, grid=(50, 1), words=14, vocabulary=93, answers=42,
                    frame_token=True, text_channels=512)
    linear, norm = 512 * 512 + 512, 2 * 512
    projections = 128 * 512 + 512 + 4 * linear                                      # audio; frame, patch, word, question
    selections = (1024 * 512 + 512) + 2 * (2 * linear - 512)                        # pooled pair; queries and keys, twice
    guided, whole, fusion = 4 * linear + 2 * linear + norm, 8 * linear + 2 * linear + 2 * norm, 6 * linear + 2 * norm
    model = build_model(spec, config["backbone"], {"name": "plain"})
    assert sum(p.numel() for p in model.backbone.parameters()) == projections + selections + guided + whole + fusion


# What is absent.

@pytest.mark.parametrize("spec", [CLIP, MAP])
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_masked_segments_are_as_if_cut_out(spec, variant):
    """Two of the four segments of two seconds are absent, and the same model reads the other four seconds alone."""
    model = make(spec, variant=variant, top_k=None if variant == "released" else 2)
    features = model.encode(batch_of(3, spec))
    there = torch.tensor([False, False, True, True, True, True, False, False])
    masked = features.with_(presence=there.view(1, 8, 1).expand(3, 8, 2), filled=False)
    for stream in (masked.audio, masked.visual):
        stream[:, ~there] = 1e4                              # nothing may be read there
    cut = features.with_(audio=features.audio[:, there], visual=features.visual[:, there],
                         presence=masked.presence[:, there])
    if variant == "paper":
        other = make(replace(spec, segments=4), segs=2, top_k=2)
        other.load_state_dict(model.state_dict())
    else:
        other = model
    found, expected = model.fuse(masked), other.fuse(cut)
    torch.testing.assert_close(found.vector, expected.vector)
    torch.testing.assert_close(found.summaries, expected.summaries)


@pytest.mark.parametrize("modality", [AUDIO, VISUAL])
def test_an_absent_stream_leaves_zeros_for_a_summary_and_the_other_one_alone(modality):
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


# Sizes and options.

@pytest.mark.parametrize("seconds, segs", [(60, 12), (10, 5), (6, 3), (4, 2), (7, 7), (22, 11), (2, 2), (1, 1)])
def test_segments_are_a_divisor_with_the_published_ones_at_their_lengths(seconds, segs):
    assert segment_count(seconds) == segs


@pytest.mark.parametrize("segments, grid, frame_token, expected", [
    (60, (50, 1), True, (12, 2, 25)), (10, (50, 1), True, (5, 2, 25)), (10, (14, 14), False, (5, 2, 100)),
    (6, (2, 3), False, (3, 1, 3)), (1, (1, 1), False, (1, 1, 1)),
])
def test_derived_sizes(segments, grid, frame_token, expected):
    spec = replace(CLIP, segments=segments, grid=grid, frame_token=frame_token)
    assert resolve_sizes(spec, None, None, None) == Sizes(*expected)


@pytest.mark.parametrize("options, message", [
    ({"segs": 3}, r"backbone.segs=3 does not divide the 8 segments of the data; expected one of 1, 2, 4, 8"),
    ({"top_k": 5}, r"backbone.top_k=5 is more than the 4 segments"),
    ({"top_m": 7}, r"backbone.top_m=7 is more than the 6 patches"),
    ({"heads": 3}, r"backbone.heads=3 must divide the 16 channels"),
])
def test_sizes_that_do_not_fit_are_named(options, message):
    with pytest.raises(OptionError, match=message):
        build_model(CLIP, {"name": "pstp_net", **options}, {"name": "plain"})


def test_clip_text_is_refused_where_the_data_have_none():
    with pytest.raises(OptionError, match="backbone.text=clip needs question features: set dataset.question_features"):
        build_model(replace(CLIP, text_channels=0), {"name": "pstp_net", "text": "clip"}, {"name": "plain"})


def test_candidates_are_read_by_an_lstm_of_their_own_beside_a_clip_question():
    spec = replace(CLIP, choices=4)
    model = build_model(spec, {"name": "pstp_net", "text": "clip"}, {"name": "plain"}).train()
    batch = replace(batch_of(5, spec), text_words=torch.randn(5, 9, 10), text_question=torch.randn(5, 10))
    sum(model(batch).terms.values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    model.eval()
    before = model(batch).logits["complete"]
    assert torch.equal(before, model(replace(batch, words=batch.words.roll(1, 0))).logits["complete"])
    assert not torch.equal(before, model(replace(batch, choices=batch.choices.roll(1, 1))).logits["complete"])


# From files to logits.

def test_clip_features_from_files_to_logits(tmp_path):
    root, rng = write_dataset(tmp_path / "data", seconds=8), np.random.default_rng(1)
    (root / "feats/clip").mkdir()
    for path in (root / "feats/vggish").glob("*.npy"):
        np.save(root / "feats/clip" / path.name, rng.standard_normal((8, 7, 16)).astype(np.float16))
    asked = MusicAVQA(root=str(root))
    texts = sorted({" ".join(q.words) for split in ("train", "val", "test") for q in asked.questions(split)})
    words = rng.standard_normal((len(texts), 9, 10)).astype(np.float16)
    np.savez(root / "feats/text.npz", texts=np.array(texts), words=words, question=words[:, 3] * 2)
    data = MusicAVQA(root=str(root), stride=1, visual_folder="feats/clip", visual_layout="cls_first",
                     question_features="feats/text.npz")
    vocabulary = data.vocabulary()
    spec = data.spec(vocabulary)
    assert (spec.grid, spec.visual_channels, spec.frame_token, spec.text_channels) == ((7, 1), 16, True, 10)
    questions = data.question_set("test", vocabulary)
    batch = next(iter(make_loader(questions, batch_size=5, shuffle=False))).to("cpu")
    for i, question in enumerate(questions.questions[:5]):
        stored = np.load(root / f"feats/clip/{question.video_id}.npy").astype(np.float32)
        np.testing.assert_array_equal(batch.visual[i, :, :, :, 0].transpose(1, 2), stored)
        row = texts.index(" ".join(question.words))
        np.testing.assert_array_equal(batch.text_words[i], words[row])
        np.testing.assert_array_equal(batch.text_question[i], words[row, 3] * 2)
    model = build_model(spec, {"name": "pstp_net", "text": "clip"}, {"name": "plain"}).eval()
    encoded = model.backbone.encode(batch).visual[0, 3]
    torch.testing.assert_close(encoded[0], model.backbone.frame(batch.visual[0, 3, :, 0, 0]))
    torch.testing.assert_close(encoded[4], model.backbone.patch(batch.visual[0, 3, :, 4, 0]))
    logits = model(batch).logits["complete"]
    assert logits.shape == (5, spec.answers) and torch.isfinite(logits).all()
    other = replace(batch, text_words=batch.text_words + 1)
    assert not torch.allclose(logits, model(other).logits["complete"])
