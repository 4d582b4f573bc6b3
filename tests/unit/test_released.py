"""The choices of the released code, each against a computation of its own."""

from dataclasses import replace

import pytest
import torch
import toy
from denoising_diffusion_pytorch import Unet
from torch.nn import functional as F
from toy import SHAPE, flat, random_features

from dataset.types import AUDIO, VISUAL
from engine.config import compose
from models.avqa import AVQAModel
from models.backbones.avst import AVST
from models.errors import OptionError
from models.features import FeatureShape
from models.heads import OpenVocabulary
from models.methods.plain import Plain
from models.rmm_avr.method import RMMAVR
from models.rmm_avr.released import (
    MapDenoiser,
    NoisedReal,
    Released,
    ReleasedAVR,
    ReleasedRMM,
    reconstruction_loss,
)
from scripts.tables.grid import find_grid

OPTIONS = {"width": 8, "steps": 4}


def released(shape: FeatureShape = SHAPE, **changes) -> ReleasedAVR:
    torch.manual_seed(0)
    return ReleasedAVR(shape, **{**OPTIONS, **changes})


def test_the_preset_changes_what_departs_from_the_paper():
    files = ("configs/paper.yaml", "configs/released.yaml")
    paper, release = (flat(compose(file, ["dataset=music_avqa"])) for file in files)
    changed = {key: value for key, value in release.items() if key in paper and value != paper[key]}
    assert changed == {
        "backbone.negatives": "other_video", "method.name": "released", "method.refine": "missing_only",
        "method.avr.schedule": "sigmoid", "method.avr.objective": "v", "method.avr.clip": 1.0,
        "method.avr.layout": "map",
        "method.avr.input_skip": False, "train.init_method": True,
        "train.init": "runs/music_avqa-avst-released-start-s1/last.pt", "evaluate.checkpoint": "last",
    }
    assert {key: value for key, value in release.items() if key not in paper} == {
        "method.reconstruction": 1.0, "method.rmm.similarity": "cosine", "method.rmm.question_pairing": "own",
        "method.avr.loss_weight": "snr", "method.avr.detach_input": False,
        "method.avr.normalize": "unnormalise_only", "method.avr.audio_readout": "corner",
    }
    assert release["train.clip_norm"] is None and (release["train.epochs"], release["train.batch_size"]) == (50, 4)


def test_the_network_is_as_large_as_that_of_version_1_9_4():
    """163 tensors, 4,685,120 numbers; an RMS norm would lack a vector per block."""
    mine, library = MapDenoiser(64, 512, (1, 2), (14, 14)), Unet(64, channels=512, dim_mults=(1, 2))
    biases = sum(p.numel() for name, p in mine.named_parameters() if name.endswith(".norm.bias"))
    assert len(mine.state_dict()) == 163 and sum(p.numel() for p in mine.parameters()) == 4_685_120
    assert sum(p.numel() for p in library.parameters()) == 4_685_120 - biases


@pytest.mark.parametrize("levels", [(1,), (1, 2)])
def test_the_map_denoiser_is_the_library_but_for_norms(levels):
    """The map denoiser is the library network but for group norms."""
    torch.manual_seed(0)
    mine, library = MapDenoiser(16, 4, levels, (6, 4)), Unet(16, channels=4, dim_mults=levels)
    names, others = ({k: tuple(v.shape) for k, v in m.state_dict().items()} for m in (mine, library))
    exchanged = {k for k in names if k not in others}
    assert exchanged and all(".block" in k and k.endswith((".norm.weight", ".norm.bias")) for k in exchanged)
    assert {k for k in others if k not in names} == {k.rsplit(".", 1)[0] + ".g" for k in exchanged}
    assert all(names[k] == others[k] for k in names if k in others)
    x, step = torch.randn(2, 24, 4), torch.tensor([0, 3])
    image = Unet.forward(mine, x.transpose(1, 2).reshape(2, 4, 6, 4), step)
    torch.testing.assert_close(mine(x, step), image.flatten(2).transpose(1, 2))


def test_an_odd_map_is_padded_and_cut():
    """Zeros below and to the right make 3 x 5 the 4 x 6 that two levels halve; the rest is cut."""
    odd, whole = (MapDenoiser(8, 4, (1, 2), grid) for grid in ((3, 5), (4, 6)))
    whole.load_state_dict(odd.state_dict())
    image, step = torch.zeros(2, 4, 6, 4), torch.tensor([1, 2])
    image[:, :3, :5] = torch.randn(2, 3, 5, 4)
    expected = whole(image.flatten(1, 2), step).unflatten(1, (4, 6))[:, :3, :5]
    torch.testing.assert_close(odd(image[:, :3, :5].flatten(1, 2), step), expected.flatten(1, 2))


def test_the_levels_are_those_asked_for():
    """One level halves nothing: a map of 3 x 5 is refined as it is."""
    assert len(released(multipliers=[1]).diffusion.model.downs) == 1 and len(released().diffusion.model.downs) == 2
    one, image = MapDenoiser(8, 4, (1,), (3, 5)), torch.randn(2, 4, 3, 5)
    expected = Unet.forward(one, image, torch.tensor([1, 2])).flatten(2).transpose(1, 2)
    torch.testing.assert_close(one(image.flatten(2).transpose(1, 2), torch.tensor([1, 2])), expected)


def test_an_input_skip_that_a_map_does_not_have_is_refused():
    with pytest.raises(OptionError, match="input_skip=true needs avr.layout=tokens or avr.layout=time, got .*map"):
        released(input_skip=True)
    assert released(input_skip=True, layout="time").diffusion.model.input_skip is not None


def test_joining_is_a_1x1_convolution():
    """Joining is a 1x1 convolution over audio repeated on the map."""
    avr, features = released(), random_features(2)
    B, T, N, D = features.visual.shape
    H, W = SHAPE.grid
    image = features.visual.transpose(2, 3).reshape(B * T, D, H, W)
    sound = features.audio.reshape(B * T, D, 1, 1).expand(-1, -1, H, W)
    expected = F.conv2d(torch.cat([sound, image], dim=1), avr.layout.fold.weight[..., None, None], avr.layout.fold.bias)
    joined = avr.join(features.audio, features.visual)
    torch.testing.assert_close(joined.transpose(1, 2).reshape(B * T, D, H, W), expected)


@pytest.mark.parametrize("readout", ["corner", "mean"])
def test_separating_reads_audio_off_the_corner_or_the_mean(readout):
    avr = released(audio_readout=readout)
    folded = torch.randn(2 * SHAPE.segments, SHAPE.tokens, SHAPE.channels)
    audio, visual = avr.layout.separate(folded)
    image = folded.transpose(1, 2).unflatten(2, SHAPE.grid)
    wide = F.conv2d(image, avr.layout.unfold.weight[..., None, None], avr.layout.unfold.bias)     # (B*T, 2D, H, W)
    sound, picture = wide.chunk(2, dim=1)
    expected = sound[:, :, 0, 0] if readout == "corner" else sound.mean(dim=(2, 3))
    torch.testing.assert_close(audio.flatten(0, 1), expected)
    torch.testing.assert_close(visual.flatten(0, 1).transpose(1, 2).unflatten(2, SHAPE.grid), picture)


def test_what_is_unfolded_lies_in_zero_to_one():
    avr, features = released(), random_features(2)
    seen = []
    avr.layout.unfold.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    avr.refine(features.with_(audio=features.audio * 5, visual=features.visual * 5))
    low, high = seen[0].detach().aminmax()
    assert 0 <= float(low) and float(high) <= 1
    assert float(low) == 0 or float(high) == 1


def test_the_weight_over_steps_is_snr_over_snr_plus_one():
    diffusion = released().diffusion
    snr = diffusion.alpha_bar / (1 - diffusion.alpha_bar)
    torch.testing.assert_close(diffusion.loss_weight, snr / (snr + 1))


def test_the_reconstruction_loss_by_hand():
    real, view = random_features(2), random_features(2, seed=1)
    real.presence[0, 1, AUDIO] = real.presence[1, 0, VISUAL] = False
    whole = real.presence.all(dim=-1)
    expected = 0.0
    for name in ("audio", "visual"):
        errors = [float((getattr(view, name)[b, t] - getattr(real, name)[b, t]).square().mean())
                  for b in range(2) for t in range(4) if whole[b, t]]
        expected += 2 * sum(errors) / len(errors)                   # the same view twice
    assert float(reconstruction_loss(real, [view, view])) == pytest.approx(expected, rel=1e-5)


def test_the_reconstruction_loss_is_of_both_sides():
    """The reconstruction loss is of both sides before the missing one is chosen."""
    torch.manual_seed(0)
    method = Released(SHAPE, rmm={"slots": 3}, avr=OPTIONS).train()
    features = random_features(3)
    views = method.views(features)
    assert torch.equal(views.features["audio_missing"].visual, features.visual)
    assert float(views.losses["reconstruction"].detach()) > 0
    views.losses["reconstruction"].backward()
    assert method.avr.layout.unfold.weight.grad[SHAPE.channels:].abs().sum() > 0


def test_time_major_pairs_rows_with_other_questions():
    """Time major pairs row i with question i modulo b in training only."""
    torch.manual_seed(0)
    rmm, features = ReleasedRMM(SHAPE, slots=5, question_pairing="time_major"), random_features(3)
    B, T = features.audio.shape[:2]
    found = rmm.train()(features).audio_addressing.flatten(0, 1)
    own = ReleasedRMM(SHAPE, slots=5)
    own.load_state_dict(rmm.state_dict())
    for i in range(B * T):
        b, t = divmod(i, T)
        asked = features.rows(slice(b, b + 1)).with_(question=features.question[i % B:i % B + 1])
        torch.testing.assert_close(found[i], own(asked).audio_addressing[0, t])
    torch.testing.assert_close(rmm.eval()(features).audio, own(features).audio)


def test_the_official_evaluation_reads_what_is_missing():
    """Without noise nothing is missing, and noise comes on the missing side alone."""
    torch.manual_seed(0)
    method = RMMAVR(toy.SHAPE, rmm={"slots": 3}, avr={"enabled": False})
    model = AVQAModel(AVST(toy.SPEC), method, OpenVocabulary(16, toy.SPEC.answers)).eval()
    batch = toy.random_batch(3)
    silent = replace(batch, presence=batch.presence.clone())
    silent.presence[..., AUDIO] = False

    def logits(given, *scale):
        with torch.no_grad():
            return NoisedReal(model, scale)(given).logits["complete"]

    whole = model(batch).logits["complete"]
    torch.testing.assert_close(logits(silent, 0.0, 0.0), whole)
    assert torch.equal(logits(silent, 0.3, 0.0), logits(silent, 0.3, 0.7))
    assert not torch.allclose(logits(silent, 0.3, 0.0), whole)
    torch.testing.assert_close(logits(batch, 0.3, 0.7), whole)


def test_the_official_evaluation_is_for_this_method_alone():
    model = AVQAModel(AVST(toy.SPEC), Plain(toy.SHAPE), OpenVocabulary(16, toy.SPEC.answers))
    with pytest.raises(OptionError, match="released_noise"):
        NoisedReal(model, (0.3, 0.7))


def test_every_row_of_the_table_takes_back_one_choice():
    grid = find_grid("released")[1]
    _, files = grid.schedule([])
    own = flat(compose(files, []))
    for key, row in grid.rows.items():
        changed = flat(compose(files, row.overrides))
        count = sum(changed.get(name) != value for name, value in own.items())
        assert key == "dropout" or count == {"released": 0, "standardise": 2}.get(key, 1), key
