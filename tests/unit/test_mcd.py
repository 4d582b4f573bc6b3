"""MCD: what the losses do on aligned pairs, what the answer is read off, what a mask takes away."""

import math
from dataclasses import replace

import torch
from toy import SPEC, random_batch, without_dropout

from dataset.types import AUDIO, VISUAL
from models.backbones.mcd import MCD, Association
from models.layers.attention import Stream


def backbone() -> MCD:
    torch.manual_seed(0)
    return MCD(SPEC)


def test_a_block_adds_the_learned_amount_of_the_other_modality():
    torch.manual_seed(0)
    block = Association(8).eval()
    x, y, z = (Stream(torch.randn(2, 3, 8)) for _ in range(3))
    assert not torch.allclose(block(x, y).tokens, block(x, z).tokens)
    with torch.no_grad():
        block.mix.zero_()
    torch.testing.assert_close(block(x, y).tokens, block(x, z).tokens)


def test_both_streams_of_a_block_are_made_of_its_inputs():
    """With one block, what sound contributes to the picture is the projected sound, not the
    associated one.
    """
    model, batch = backbone().eval(), random_batch(2)
    del model.associate_audio[1], model.associate_visual[1]
    features = model.encode(batch)
    seen = model.fuse(features).summaries[1]
    with torch.no_grad():
        for parameter in model.associate_audio.parameters():
            parameter.add_(1.0)
    torch.testing.assert_close(model.fuse(features).summaries[1], seen)


def trained_losses(aligned: bool, mix: float) -> dict[str, float]:
    """Both losses after 60 steps on pairs of one scene, or of unrelated scenes drawn anew."""
    generator = torch.Generator().manual_seed(0)
    scene = torch.randn(64, 1, SPEC.audio_channels, generator=generator).expand(-1, SPEC.segments, -1)
    maps = torch.cat([scene] * 3, dim=-1)[..., :SPEC.visual_channels, None, None].expand(-1, -1, -1, *SPEC.grid)
    model = without_dropout(backbone()).train()
    for block in (*model.associate_audio, *model.associate_visual):
        torch.nn.init.constant_(block.mix, mix).requires_grad_(False)
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for step in range(60):
        heard, seen = (torch.randperm(64, generator=generator)[:16] for _ in range(2))
        batch = replace(random_batch(16, seed=step), audio=scene[heard], visual=maps[heard if aligned else seen])
        losses = model.fuse(model.encode(batch)).losses
        optimiser.zero_grad()
        sum(value.mean() for value in losses.values()).backward()
        optimiser.step()
    return {name: float(value.detach().mean()) for name, value in losses.items()}


def test_the_contrast_falls_on_aligned_pairs_only():
    """The contrast falls on aligned pairs and stays on unrelated ones."""
    aligned, unrelated = trained_losses(True, mix=0.0), trained_losses(False, mix=0.0)
    assert aligned["contrast"] < 0.5 < math.log(16) - 0.5 < unrelated["contrast"]
    assert aligned["distil"] < unrelated["distil"]


def test_mixing_lets_the_contrast_fall_on_unrelated_pairs_too():
    """The shortcut of the fidelity list: each stream has read the other before their contrast."""
    assert trained_losses(False, mix=0.1)["contrast"] < 1.0


def test_own_losses_count_whole_questions_only():
    model, batch = backbone().train(), random_batch(5)
    features = model.encode(batch)
    presence = batch.presence.clone()
    presence[1, :, AUDIO] = False
    presence[3, 2, VISUAL] = False
    losses = model.fuse(features.with_(presence=presence)).losses
    for values in losses.values():
        assert (values > 0).tolist() == [True, False, True, False, True]
    assert model.eval().fuse(features).losses == {}


def test_the_answer_is_read_off_the_question_embedding_alone():
    """With the clues' way into the embedding cut, sound and picture change nothing."""
    model, batch = backbone().eval(), random_batch(3)
    features = model.encode(batch)
    other = features.with_(audio=features.audio + 1, visual=features.visual * 2)
    assert not torch.allclose(model.fuse(features).vector, model.fuse(other).vector)
    with torch.no_grad():
        model.combine.weight.zero_()
    torch.testing.assert_close(model.fuse(features).vector, model.fuse(other).vector)


def test_what_is_masked_is_as_if_cut_out():
    model, batch = backbone().eval(), random_batch(2)
    features = model.encode(batch)
    presence = batch.presence.clone()
    presence[:, 2:] = False
    masked = model.fuse(features.with_(presence=presence, filled=False)).vector
    cut = features.with_(audio=features.audio[:, :2], visual=features.visual[:, :2], presence=presence[:, :2])
    torch.testing.assert_close(masked, model.fuse(cut).vector)


def test_a_modality_that_cannot_be_read_gives_zero_clues():
    model, batch = backbone().eval(), random_batch(2)
    features = model.encode(batch)
    presence = batch.presence.clone()
    presence[..., AUDIO] = False
    heard, seen = model.fuse(features.with_(presence=presence, filled=False)).summaries
    assert not heard.any() and seen.any()


def test_the_order_of_segments_changes_nothing():
    model, batch = backbone().eval(), random_batch(2)
    features = model.encode(batch)
    turned = features.with_(audio=features.audio.flip(1), visual=features.visual.flip(1))
    torch.testing.assert_close(model.fuse(features).vector, model.fuse(turned).vector)
