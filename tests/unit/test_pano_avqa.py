"""Pano-AVQA: who reads whom, what time adds, what masks and padding take away."""

import pytest
import torch
from toy import SPEC, random_batch

from dataset.types import AUDIO, VISUAL, DataSpec
from models.backbones.pano_avqa import CrossLayer, Norm, PanoAVQA, Tokens, time_coordinates
from models.features import blank_features
from models.layers.attention import Stream


def backbone() -> PanoAVQA:
    torch.manual_seed(0)
    model = PanoAVQA(SPEC).eval()
    for parameter in model.parameters():         # far from BERT's small start, so that differences are not tiny
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def without_time() -> PanoAVQA:
    """A model in which the coordinates of all tokens are the same."""
    model = backbone()
    for tokens in (model.audio_tokens, model.visual_tokens):
        torch.nn.init.zeros_(tokens.time[0].weight)
    return model


def test_a_cross_layer_reads_in_a_ring_from_its_inputs():
    torch.manual_seed(0)
    layer = CrossLayer(8).eval()
    streams = {name: Stream(torch.randn(2, 3, 8), torch.ones(2, 3, dtype=torch.bool))
               for name in ("language", "audio", "visual")}
    before = layer(**streams)
    moved = {}
    for name in streams:
        changed = {**streams, name: streams[name]._replace(tokens=torch.randn(2, 3, 8))}
        moved[name] = [not torch.allclose(a.tokens, b.tokens) for a, b in zip(before, layer(**changed), strict=True)]
    assert moved == {"language": [True, False, True],          # itself, and visual reads it
                     "audio": [True, True, False],             # language reads it
                     "visual": [False, True, True]}            # audio reads it


def test_time_coordinates_and_the_mean_token_by_hand():
    assert time_coordinates(4, torch.zeros(1)).tolist() == [[[0, 0.25], [0.25, 0.25], [0.5, 0.25], [0.75, 0.25]]]
    torch.manual_seed(0)
    tokens, features = Tokens(8).eval(), torch.randn(1, 4, 8)
    mask = torch.tensor([[True, False, True, False]])
    stream = tokens(Stream(features, mask))
    first = tokens.feature(features[:, [0, 2]].mean(dim=1)) + tokens.time(torch.tensor([[0.25, 0.25]]))
    torch.testing.assert_close(stream.tokens[:, 0], first / 2)
    assert stream.mask.tolist() == [[True, True, False, True, False]]


@pytest.mark.parametrize("timed", [True, False])
def test_order_is_known_by_time_alone(timed):
    model, batch = backbone() if timed else without_time(), random_batch(3)
    features = model.encode(batch)
    turned = features.with_(audio=features.audio.flip(1), visual=features.visual.flip(1))
    same = torch.allclose(model.fuse(features).vector, model.fuse(turned).vector, atol=1e-4)
    assert same is not timed


def test_without_time_what_is_masked_is_as_if_cut_out():
    model, batch = without_time(), random_batch(2)
    features = model.encode(batch)
    presence = batch.presence.clone()
    presence[:, 2:] = False
    masked = model.fuse(features.with_(presence=presence, filled=False)).vector
    cut = features.with_(audio=features.audio[:, :2], visual=features.visual[:, :2], presence=presence[:, :2])
    torch.testing.assert_close(masked, model.fuse(cut).vector, atol=1e-4, rtol=1e-4)


def test_masked_values_reach_nothing():
    """Masked values reach nothing and an absent stream still has its learned token."""
    model, batch = backbone(), random_batch(2)
    features = model.encode(batch)
    presence = batch.presence.clone()
    presence[..., AUDIO] = False
    presence[:, 1, VISUAL] = False
    masked = features.with_(presence=presence, filled=False)
    loud = masked.with_(audio=features.audio + 9, visual=features.visual.clone())
    loud.visual[:, 1] = 9.0
    torch.testing.assert_close(model.fuse(masked).vector, model.fuse(loud).vector)
    before = model.fuse(masked).vector
    with torch.no_grad():
        model.audio_tokens.feature[0].bias.add_(torch.randn(SPEC.visual_channels))
    assert not torch.allclose(model.fuse(masked).vector, before)


def test_padding_changes_nothing():
    model, batch = backbone(), random_batch(3)
    batch.words = torch.tensor([[3, 4, 0, 0, 0], [5, 6, 7, 0, 0], [1, 2, 3, 4, 0]])
    shorter = batch.map(lambda t: t)
    shorter.words = batch.words[:, :4]
    torch.testing.assert_close(model.fuse(model.encode(batch)).vector, model.fuse(model.encode(shorter)).vector)


def test_the_published_number_of_weights():
    """9 + 5 + 5 layers of one attention and 5 cross layers of three branches with two, at width
    768: 276 million.
    """
    attention, perceptron, norm = 4 * (768 * 768 + 768), 2 * 768 * 3072 + 3072 + 768, 2 * 768
    layer = attention + perceptron + 2 * norm
    spec = DataSpec(segments=10, audio_channels=128, visual_channels=768, grid=(7, 7), words=14, vocabulary=93,
                    answers=42)
    with torch.device("meta"):
        model = PanoAVQA(spec, layers_language=9, layers_visual=5, layers_audio=5, layers_cross=5)
    parts = (model.language, model.audio, model.visual, model.cross)
    count = sum(p.numel() for part in parts for p in part.parameters())
    assert count == 19 * layer + 15 * (layer + attention + norm)
    assert round(count / 1e6) == 276


def test_blank_tokens_have_no_exploding_gradient():
    """At BERT's start a blank token is zero in every layer; each norm multiplied by a million."""
    torch.manual_seed(0)
    model, batch = PanoAVQA(SPEC), random_batch(3)
    for modality in (AUDIO, VISUAL):
        for filled in (False, True):
            presence = batch.presence.clone()
            presence[..., modality] = False
            features = blank_features(model.encode(batch), presence).with_(filled=filled)
            model.zero_grad()
            fused = model.fuse(features)
            (fused.vector.square().sum() + sum(summary.sum() for summary in fused.summaries)).backward()
            assert max(float(p.grad.norm()) for p in model.parameters() if p.grad is not None) < 1e3


def test_the_norm_is_a_layer_norm_but_for_blanks():
    x = torch.randn(2, 3, 8)
    x[0, 1] = 0
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    norm, library = Norm(8), torch.nn.LayerNorm(8, eps=1e-12)
    assert torch.equal(norm(ours), library(theirs))
    norm(ours).pow(3).sum().backward()
    library(theirs).pow(3).sum().backward()
    blank = (x == 0).all(dim=-1)
    assert torch.equal(ours.grad[~blank], theirs.grad[~blank]) and not ours.grad[blank].any()
