"""Checkpoints of earlier formats as those of today.

In format 1 the official code's choices were options of the paper's method. Format 2 had options
that are constants now, and label smoothing was the method's. Format 3 kept the schedule of the
diffusion, which follows from the options.
"""

from __future__ import annotations

from typing import Any

from engine.errors import UsageError, shown

# Options of format 1 that are the official code's alone now, with the value that meant the paper.
RELEASED = {"rmm": {"similarity": "scaled_dot", "question_pairing": "own"},
            "avr": {"audio_readout": "corner", "loss_weight": "none", "normalize": "standardise"}}
# Options that are gone, with the only value that had an effect on no run.
GONE = {"rmm": {"temperature": 1.0, "detach_target": False, "init_std": 1.0}, "avr": {"samples": 1}}
DIFFUSION = "method.avr.diffusion."
MOVED = {"method.avr.fold.": "method.avr.layout.fold.", "method.avr.unfold.": "method.avr.layout.unfold."}
# Options of format 2 that are gone, by component, with the value that is a constant now.
CONSTANT = {
    "avsd": {"frames": 4, "answer": "perceptron", "dropout": 0.5},
    "avst": {"heads": 4, "temperature": 1.0, "match_views": "all"},
    "mcd": {"blocks": 2, "heads": 4, "dropout": 0.1, "mix": 0.1, "text_objects": "words", "latent": 128,
            "temperature": 0.07, "answer_dropout": 0.5},
    "modality_alignment": {"heads": 4, "dropout": 0.5, "norm": "layer", "values": "own"},
    "pano_avqa": {"heads": 8, "expansion": 4, "dropout": 0.1, "coordinates": True},
    "pstp_net": {"segs": None, "top_k": None, "top_m": None, "num_layers": 1, "heads": 4, "dropout": 0.1},
    "modality_dropout": {"fill": "zeros"},
    "prompts": {"tokens": 16, "level": "input", "finetune": "prompts"},
    "shaspec": {"normalize": "layer", "align_weight": 0.1, "domain_weight": 0.02, "warmup_steps": 0},
    "actionmae": {"memory": 4, "layers": 2, "heads": 8, "replace": "absent", "norm_target": False,
                  "detach_target": True, "weight": 1.0},
    "drfuse": {"attention": "per_answer", "jsd": "bernoulli_mean", "dropout": 0.3, "prediction_weight": 1.0,
               "orthogonal_weight": 1.0, "jsd_weight": 1.0, "ranking_weight": 1.0},
    "rmm_avr": {"fill": "zeros", "avr.detach_input": True},
}


def upgrade(state: dict[str, Any]) -> dict[str, Any]:
    """The content of a checkpoint of format 1, 2 or 3 with today's names.

    Raises:
        UsageError: it was trained with an option that is gone.
    """
    state = of_format_1(state) if state["format"] == 1 else state
    return of_format_3(of_format_2(state) if state["format"] < 3 else state)


def of_format_3(state: dict[str, Any]) -> dict[str, Any]:
    model = {name: value for name, value in state["model"].items()
             if not name.startswith(DIFFUSION) or name.startswith(DIFFUSION + "model.")}
    return {**state, "model": model}


def of_format_2(state: dict[str, Any]) -> dict[str, Any]:
    config = options_of_today(state["config"])
    gone = ("method.steps_done",) if config["method"]["name"] == "plain" else ("method.steps_done", "method.fill.")
    model = {name: value for name, value in state["model"].items() if not name.startswith(gone)}
    if "method.fill.seen" in model:                      # was one flag for both modalities
        model["method.fill.seen"] = model["method.fill.seen"].expand(2).clone()
    return {**state, "config": config, "model": model}


def options_of_today(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration of format 2 or later; UsageError where an option that is gone differs."""
    config = {section: dict(options) if isinstance(options, dict) else options for section, options in config.items()}
    for kind in ("backbone", "method"):
        for key, constant in CONSTANT.get(config[kind]["name"], {}).items():
            drop(config[kind], key, constant, kind)
    if "label_smoothing" in config["method"]:
        config["train"]["label_smoothing"] = config["method"].pop("label_smoothing")
    return config


def drop(section: dict[str, Any], key: str, constant: Any, kind: str) -> None:
    """Take `key`, such as `avr.detach_input`, out of the section; UsageError at another value."""
    first, _, rest = key.partition(".")
    if rest and isinstance(section.get(first), dict):
        section[first] = dict(section[first])
        drop(section[first], rest, constant, f"{kind}.{first}")
    elif not rest and (value := section.pop(first, constant)) != constant:
        raise UsageError(f"{kind}.{first}={shown(value)} is no option any more, it is always {shown(constant)}; leave "
                         "it out, or use the version of the code that had it")


def of_format_1(state: dict[str, Any]) -> dict[str, Any]:
    model = {new_name(name): value for name, value in state["model"].items()}
    method = state["config"]["method"]
    if method["name"] in ("rmm_avr", "rmm_avr_plus"):
        method = new_method(method)
    return {**state, "model": model, "config": {**state["config"], "method": method}}


def new_name(name: str) -> str:
    for old, new in MOVED.items():
        if name.startswith(old):
            return new + name[len(old):]
    return name


def new_method(old: dict[str, Any]) -> dict[str, Any]:
    """The section `method`: of the paper's method, or of the released one with its choices."""
    new = {**old, "rmm": dict(old["rmm"]), "avr": {**old["avr"], "input_skip": False}}
    official = {section: {key: new[section].pop(key) for key in options if key in new[section]}
                for section, options in RELEASED.items()}
    for section, options in GONE.items():
        for key, value in options.items():
            if new[section].get(key) == value:
                del new[section][key]
    reconstruction = new.pop("reconstruction", 0.0)
    if official == RELEASED and not reconstruction and new["avr"]["layout"] != "map":
        return {**new, "name": "rmm_avr"}
    return released(new, official, reconstruction)


def released(new: dict[str, Any], official: dict[str, Any], reconstruction: float) -> dict[str, Any]:
    """The section as `method=released` takes it; other options stood at their defaults."""
    plain = {"rmm": {"addressing": "paper", "scale": "channels", "loss_reduction": "mean"},
             "avr": {"start": "given", "start_step": None, "sampler": "ancestral"},
             "": {"fill": "zeros", "lambda1": 1.0, "lambda2": 1.0, "label_smoothing": 0.0, "views": "all"}}
    method = {**new, "name": "released", "reconstruction": reconstruction,
              "rmm": {**new["rmm"], **official["rmm"]}, "avr": {**new["avr"], **official["avr"]}}
    for section, options in plain.items():
        place = method[section] if section else method
        for key, value in options.items():
            if place.get(key, value) == value:
                place.pop(key, None)
    return method
