"""Recipes: each composes by the command it names, for its own component and for no other."""

import re
from pathlib import Path

import pytest

from engine.config import REGISTRIES, compose, load_yaml
from engine.errors import UsageError
from engine.optimiser import depends_on_length

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "configs" / "recipe").glob("*.yaml"))


def command(path: Path) -> list[str]:
    """The arguments of `bash train.sh` in the head of the file, over lines that begin with '#'."""
    head = re.sub(r"\n#\s*", " ", path.read_text().split("\nfor:")[0])
    match = re.search(r"Command: bash train.sh ((?:[\w./]+\.yaml |[\w.]+=\S+ ?)+)", head + " ")
    return match[1].split()


def composed(arguments: list[str]) -> dict:
    return compose([a for a in arguments if "=" not in a], [a for a in arguments if "=" in a])


def test_components_trained_in_their_own_way_have_a_recipe():
    """There is a recipe for what the sources train in a way of their own."""
    named = {next(iter(load_yaml(path)["for"].values())) for path in RECIPES}
    assert {"avst", "avsd", "pano_avqa", "modality_alignment", "prompts", "actionmae", "shaspec", "drfuse"} <= named


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_gives_what_it_says_to_the_run_of_its_command(path):
    arguments = command(path)
    assert f"configs/recipe/{path.name}" in arguments
    config, layer = composed(arguments), load_yaml(path)
    for kind, name in layer["for"].items():
        assert config[kind]["name"] == name
    assert {key: config["train"][key] for key in layer["train"]} == layer["train"]
    changed = composed([a for a in arguments if "recipe" not in a])["train"]
    assert changed != config["train"], "a recipe that changes nothing"
    assert "for" not in config


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_for_what_is_not_chosen_is_one_clear_error(path):
    for kind, name in load_yaml(path)["for"].items():
        other = next(known for known in REGISTRIES[kind] if known != name)
        with pytest.raises(UsageError, match=f"{path.name} is for .*{name}.*{kind}={other} is chosen"):
            composed([*command(path), f"{kind}={other}"])


@pytest.mark.parametrize("wanted", ["avst", "[avst]", "{backbon: avst}", "null"])
def test_a_wrong_for_is_one_clear_error(tmp_path, wanted):
    path = tmp_path / "mine.yaml"
    path.write_text(f"for: {wanted}\n")
    with pytest.raises(UsageError, match="mine.yaml.*'for' must name a dataset, a backbone, a method"):
        compose(str(path), [])


@pytest.mark.parametrize("options, named", [
    (["train.momentum=0.9"], "train.momentum"), (["train.optimiser=adamw", "train.momentum=0.9"], "adamw"),
    (["train.optimiser=sgd", "train.beta2=0.98"], "train.beta2"), (["train.warmup=1"], "train.warmup"),
    (["train.optimiser=rmsprop"], "train.optimiser"), (["train.schedule=lineer"], "train.schedule"),
])
def test_optimiser_options_that_do_not_fit_are_refused(options, named):
    with pytest.raises(UsageError, match=named):
        compose(None, options)


def test_which_schedules_need_the_length_of_the_run():
    """Schedules that need the length are those that change with it."""
    assert not depends_on_length(compose(None, [])["train"])
    assert not depends_on_length(compose(None, ["train.schedule=constant"])["train"])
    for option in ("warmup=0.1", "schedule=linear", "schedule=polynomial", "schedule=cosine"):
        assert depends_on_length(compose(None, [f"train.{option}"])["train"])
