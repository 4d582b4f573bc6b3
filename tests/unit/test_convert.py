"""Official state dicts, made by name and shape: what is used, reported and answered."""

import json
import re

import numpy as np
import pytest
import torch
from commands import command
from torch.nn import functional as F

from engine.checkpoint import load_checkpoint
from engine.config import compose
from engine.errors import UsageError
from models import build_model
from models.rmm_avr.released import MapDenoiser
from scripts.benchmark import MUSIC_AVQA
from scripts.convert_checkpoint import read
from scripts.study.convert import convert, has_method, steps_of

SLOTS = 3                                # 75 of 100,352 entries are 30 MB


def layers(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """`name=(out, in, ...)` as the weight and bias of a layer with that name, random."""
    entries = {}
    for name, shape in shapes.items():
        entries[f"{name}.weight"], entries[f"{name}.bias"] = torch.randn(shape) * 0.05, torch.randn(shape[0]) * 0.05
    return entries


def attention(name: str) -> dict[str, torch.Tensor]:
    return {f"{name}.in_proj_weight": torch.randn(1536, 512) * 0.05, f"{name}.in_proj_bias": torch.randn(1536) * 0.05,
            **layers(**{f"{name}.out_proj": (512, 512)})}


def official_avst(words: int = 93, answers: int = 42) -> dict[str, torch.Tensor]:
    """Every entry of the official AVST by name and shape, and a few that have no use here."""
    torch.manual_seed(0)
    square = (512, 512)
    lstm = {f"question_encoder.lstm.{name}_l0": torch.randn(*shape) * 0.05 for name, shape in
            {"weight_ih": (2048, 512), "weight_hh": (2048, 512), "bias_ih": (2048,), "bias_hh": (2048,)}.items()}
    norms = {f"norm{i}.{part}": torch.randn(512) for i in (1, 2, 3) for part in ("weight", "bias")}
    return {
        "question_encoder.word2vec.weight": torch.randn(words, 512), **lstm, **norms,
        **layers(**{"question_encoder.fc": (512, 1024), "fc_a1": (512, 128), "fc_a2": square, "fc_a1_pure": (512, 128),
                    "fc_a2_pure": square, "fc_v": (512, 2048), "fc_st": square, "fc_fusion": (512, 1024),
                    "fc": (512, 1024), "fc_aq": square, "fc_vq": square, "linear11": square, "linear12": square,
                    "linear21": square, "linear22": square, "fc_ans": (answers, 512), "fc_gl": (512, 1024),
                    "fc1": (512, 1024), "fc2": (256, 512), "fc3": (128, 256), "fc4": (2, 128),
                    "visual_net.fc": (10, 512)}),
        **attention("attn_a"), **attention("attn_v"), "visual_net.conv1.weight": torch.randn(64, 3, 7, 7),
    }


def official_method() -> dict[str, torch.Tensor]:
    """AVST, memory, both 1x1 convolutions, U-Net under two names, as the method's release."""
    unet = MapDenoiser(64, 512, (1, 2), (14, 14)).state_dict()
    return {
        **official_avst(), **layers(kr=(512, 1024, 1, 1), kr2=(1024, 512, 1, 1), conv_sm=(128, 512, 3, 3)),
        **{f"memory_network.{name}_memory": torch.randn(SLOTS, size) for name, size in
           {"audio": 512, "visual": 512 * 196, "question": 512}.items()},
        **{f"unet.{k}": v for k, v in unet.items()}, **{f"diffusion.model.{k}": v for k, v in unet.items()},
        "diffusion.betas": torch.rand(10),
    }


def model(method: bool):
    config = compose("configs/released.yaml", [f"rmm.slots={SLOTS}"]) if method else compose(None, [
        "dataset=music_avqa", "method=plain"])
    return build_model(MUSIC_AVQA, config["backbone"], config["method"]).eval()


@pytest.mark.parametrize("wrapped", [False, True])
def test_avst_uses_all_that_takes_part_and_reports_the_rest(wrapped):
    official, ours = official_avst(), model(False)
    named = {f"module.{k}": v for k, v in official.items()} if wrapped else official
    state, unused = convert(named, ours.state_dict())
    assert not has_method(named) and steps_of(named) is None
    assert {re.split(r"\.", name)[0] for name in unused} == {
        "norm3", "fc_a1_pure", "fc_a2_pure", "fc_v", "fc_st", "fc", "fc_aq", "fc_vq", "visual_net"}
    used = [v for k, v in official.items() if k not in unused]
    assert sum(v.numel() for v in used) == 7_916_716 == sum(p.numel() for p in ours.parameters())
    ours.load_state_dict(state)
    assert torch.equal(ours.backbone.temporal_visual.norm.weight, official["norm1.weight"])
    assert torch.equal(ours.backbone.temporal_audio.feed_forward[0].bias, official["linear21.bias"])


def test_converted_blocks_compute_what_the_entries_say():
    """Blocks of the converted model compute what the official entries say."""
    official, ours = official_avst(), model(False)
    ours.load_state_dict(convert(official, ours.state_dict())[0])
    sound = torch.rand(2, 10, 128)
    heard = F.linear(sound, official["fc_a1.weight"], official["fc_a1.bias"]).relu()
    heard = F.linear(heard, official["fc_a2.weight"], official["fc_a2.bias"])
    torch.testing.assert_close(ours.backbone.audio(sound), heard)
    image = torch.rand(2, 10, 196, 512)
    cosine = (F.normalize(image, dim=-1) * F.normalize(heard, dim=-1).unsqueeze(2)).sum(dim=-1).softmax(dim=-1)
    grounded = (cosine.unsqueeze(-1) * F.normalize(image, dim=-1)).sum(dim=2)
    wide = torch.tanh(torch.cat([image.mean(dim=2), grounded], dim=-1))
    grounded = F.linear(wide, official["fc_gl.weight"], official["fc_gl.bias"])
    torch.testing.assert_close(ours.backbone.spatial(heard, image), grounded, atol=1e-4, rtol=1e-4)


def test_the_method_loads_memory_convolutions_and_the_unet_once():
    official, ours = official_method(), model(True)
    state, unused = convert({f"module.{k}": v for k, v in official.items()}, ours.state_dict())
    assert has_method(official) and steps_of(official) == 10
    modules = {name.split(".")[0] for name in unused}
    assert "diffusion" in modules and "conv_sm" in modules and not modules & {"unet", "kr", "kr2", "memory_network"}
    ours.load_state_dict(state)
    assert torch.equal(ours.method.rmm.text_slots, official["memory_network.question_memory"])
    x = torch.randn(1, 1024, 2, 2)
    folded = F.conv2d(x, official["kr.weight"], official["kr.bias"]).flatten(2).transpose(1, 2)
    torch.testing.assert_close(ours.method.avr.layout.fold(x.flatten(2).transpose(1, 2)), folded, atol=1e-5, rtol=1e-5)
    name = "downs.0.0.block1.norm.weight"
    assert torch.equal(ours.method.avr.diffusion.model.get_parameter(name), official[f"unet.{name}"])


@pytest.mark.parametrize("change,named", [
    (lambda s: s.pop("fc_gl.weight"), "backbone.spatial.project.weight"),
    (lambda s: s.update({"fc_ans.weight": torch.zeros(41, 512)}), "fc_ans.weight"),
])
def test_a_lacking_or_misshapen_entry_is_named(change, named):
    official = official_avst()
    change(official)
    with pytest.raises(UsageError, match=named):
        convert(official, model(False).state_dict())


def write_root(root):
    """One video with official features and two questions: six words and padding, two answers."""
    record = {"question_content": "Where is the performance?", "templ_values": "[]", "question_deleted": 0,
              "type": '["Visual", "Location"]', "video_id": "00000001", "question_id": 1, "anser": "indoor"}
    other = record | {"question_content": "Is it loud?", "question_id": 2, "anser": "yes"}
    for release, records in (("json", [record, other]), ("json_update", [other, record])):      # other order of words
        (root / release).mkdir(parents=True)
        for split in ("train", "val", "test"):
            (root / release / f"avqa-{split}.json").write_text(json.dumps(records))
    for folder, shape in (("vggish", (60, 128)), ("res18_14x14", (60, 512, 14, 14))):
        (root / "feats" / folder).mkdir(parents=True)
        np.save(root / "feats" / folder / "00000001.npy", np.random.default_rng(0).random(shape, dtype=np.float32))


def test_the_command_writes_a_run_that_can_be_evaluated(tmp_path):
    write_root(tmp_path / "data")
    torch.save({f"module.{k}": v for k, v in official_avst(words=8, answers=2).items()}, tmp_path / "avst.pt")
    root = f"dataset.root={tmp_path / 'data'}"
    done = command("scripts/convert_checkpoint.py", tmp_path / "avst.pt", tmp_path / "run", root)
    assert done.returncode == 0, done.stderr
    assert "visual_net (3)" in done.stdout and "norm3 (2)" in done.stdout
    state = load_checkpoint(tmp_path / "run" / "best.pt")
    assert state["config"]["dataset"]["annotations"] == "json_update"
    assert state["vocabulary"]["answers"] == ["indoor", "yes"]
    assert state["vocabulary"]["words"][:2] == ["<pad>", "Where"]
    done = command("main_test.py", "--checkpoint", tmp_path / "run", "runtime.device=cpu")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "results.json").read_text())["scenarios"]["complete"]["n"] == 2


def test_the_command_refuses_what_does_not_fit(tmp_path):
    """The command refuses another vocabulary and what is no state dict."""
    write_root(tmp_path / "data")
    torch.save(official_avst(), tmp_path / "avst.pt")
    root = f"dataset.root={tmp_path / 'data'}"
    done = command("scripts/convert_checkpoint.py", tmp_path / "avst.pt", tmp_path / "run", root)
    assert done.returncode == 2 and "question_encoder.word2vec.weight" in done.stderr and "vocabulary" in done.stderr
    for content, message in (({"model": [1, 2]}, "not a state dict"), (torch.nn.Linear(2, 2), "more than tensors")):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(UsageError, match=message):
            read(tmp_path / "other.pt")
    assert not (tmp_path / "run").exists()
