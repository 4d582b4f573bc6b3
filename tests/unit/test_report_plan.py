"""A grid becomes runs: shared where configurations are equal, split without loss."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.toy_plan import GRID, plan_of

from engine.config import compose, parse_overrides
from engine.errors import UsageError
from models import BACKBONES, METHODS
from scripts.tables.grid import Grid, find_grid, table_names
from scripts.tables.plan import Plan, as_overrides, digest_of, resolved
from scripts.tables.sweep import plan_line


@pytest.mark.parametrize("name", table_names())
def test_every_row_of_the_tables_at_hand_is_a_configuration(name):
    """Rows of backbones and methods that are not registered are left out."""
    grid, registries = find_grid(name)[1], {"backbone": BACKBONES, "method": METHODS}
    rows = {}
    for key, row in grid.rows.items():
        chosen = dict(item.split("=", 1) for item in row.overrides)
        if all(chosen.get(kind) in (None, *known) for kind, known in registries.items()):
            rows[key] = row
    plan = Plan()
    plan.add_table(name, grid.model_copy(update={"rows": rows}), 1, [])
    assert set(plan.tables[name]) == set(rows) and plan.runs


def test_a_backbone_from_noisier_recordings_meets_the_usual_ones():
    """In `other_purpose` every start has data of its own, every row those of all other tables."""
    plan = Plan()
    plan.add_table("other_purpose", find_grid("other_purpose")[1], 1, [])
    for row in ("zeros", "mean", "retrieval", "rmm", "regression"):
        run = plan.tables["other_purpose"][row][1]
        ours, start = run.config["dataset"], run.depends_on.config["dataset"]
        assert (ours["noise"], start["noise"]) == (0.3, 0.9) and ours["root"] != start["root"]


def test_a_mistake_in_an_override_names_table_and_row():
    grid = {**GRID, "rows": {"few": {"label": "x", "overrides": ["rmm.slotz=5"]}}}
    with pytest.raises(UsageError, match=r"table table0, row few: .*rmm.slotz.*did you mean 'slots'"):
        plan_of(grid)


def test_a_row_may_test_the_model_of_another_one():
    """It starts from that row's best, trains nothing, and takes over all of its options."""
    grid = {**GRID, "rows": {**GRID["rows"], "fewer_steps": {"label": "x", "model_of": "few",
                                                            "overrides": ["avr.start_step=2"]}}}
    rows = plan_of(grid, seeds=1).tables["table0"]
    trained, tested = rows["few"][1], rows["fewer_steps"][1]
    assert tested.depends_on is trained and tested.starts()[-1] is trained
    assert tested.config["method"] == {**trained.config["method"],
                                       "avr": {**trained.config["method"]["avr"], "start_step": 2}}
    assert tested.config["train"] == {**trained.config["train"], "epochs": 0, "init_method": True,
                                      "init": str(trained.folder / "best.pt")}
    for wrong in ("none", "late"):
        rows = {"early": {"label": "x", "model_of": wrong}, "late": {"label": "y"}}
        with pytest.raises(ValueError, match=f"'{wrong}', which is no row above it"):
            Grid.model_validate({**GRID, "rows": rows})
    with pytest.raises(ValueError, match="rows_from would be ignored"):
        again = {"label": "x", "model_of": "few", "rows_from": "configs/plugin.yaml"}
        Grid.model_validate({**GRID, "rows": {**GRID["rows"], "again": again}})


def test_equal_configurations_are_one_run_and_others_are_not():
    """The second table names the first one's rows anew, one of them with a default spelled out."""
    again = {**GRID, "rows": {"same": {"label": "x", "overrides": ["rmm.slots=5", "rmm.addressing=paper"]},
                              "new": {"label": "x", "overrides": ["rmm.slots=6"]}}}
    plan = plan_of(GRID, again, seeds=2)
    assert len(plan.runs) == 2 * (1 + 2 + 1)
    assert plan.tables["table0"]["few"][1] is plan.tables["table1"]["same"][1]
    assert plan.tables["table0"]["few"][1].users == ["table0/few s1", "table1/same s1"]
    digests = [run.digest for run in plan.runs.values()]
    assert len(set(digests)) == len(digests)


def test_a_new_option_with_a_neutral_default_keeps_the_digest():
    """An option added with a neutral default leaves earlier runs what they are."""
    before = compose("configs/embedded.yaml", [])
    del before["method"]["avr"]["gradient_steps"], before["backbone"]["match_weight"]
    for option in ("label_smoothing", "optimiser", "warmup", "patience"):
        del before["train"][option]
    now = compose("configs/embedded.yaml", [])
    assert digest_of(before, None) == digest_of(now, None)
    now["method"]["avr"]["gradient_steps"] = 2
    assert digest_of(before, None) != digest_of(now, None)


def test_the_digest_counts_what_changes_answers_and_the_start():
    """What changes no answer does not change the digest but the start does."""
    here = plan_of(GRID, seeds=1)
    for harmless in ("run.root=elsewhere", "runtime.workers=1", "runtime.device=cpu", "evaluate.batch_size=3",
                     "train.log_every=9"):
        assert list(plan_of(GRID, seeds=1, overrides=[harmless]).runs) == list(here.runs)
    for other in ("runtime.bf16=true", "train.batch_size=3", "evaluate.every=2"):
        assert not set(plan_of(GRID, seeds=1, overrides=[other]).runs) & set(here.runs)
    longer = plan_of({**GRID, "start": "configs/embedded.yaml"}, seeds=1)
    assert not set(longer.runs) & set(here.runs)


def test_the_start_is_of_the_rows_own_data_and_backbone():
    rows = {"half": {"label": "x", "overrides": ["dataset.train_missing_ratio=0.5", "rmm.slots=5"]},
            "avst": {"label": "x", "overrides": ["backbone=avst", "backbone.dropout=0.2"]}}
    plan = plan_of({**GRID, "rows": rows}, seeds=1)
    half, avst = (plan.tables["table0"][row][1].depends_on for row in rows)
    assert "dataset.train_missing_ratio=0.5" in half.arguments and "rmm.slots=5" not in half.arguments
    assert {"backbone=avst", "backbone.dropout=0.2"} <= set(avst.arguments) and avst is not half


def test_a_file_of_a_row_is_laid_over_what_all_rows_share():
    """The ablation's file is its option's run; overrides win over files, later over earlier."""
    files = ["configs/ablation/slots_50.yaml", "configs/ablation/slots_25.yaml"]
    rows = {"file": {"label": "x", "files": files}, "option": {"label": "x", "overrides": ["rmm.slots=25"]},
            "both": {"label": "x", "files": files, "overrides": ["rmm.slots=9"]}}
    by_row = plan_of({**GRID, "rows": rows}, seeds=1).tables["table0"]
    assert by_row["file"][1] is by_row["option"][1]
    assert by_row["file"][1].arguments[:3] == ["configs/embedded.yaml", *files]
    assert by_row["both"][1].config["method"]["rmm"]["slots"] == 9
    with pytest.raises(UsageError, match="table table0, row few: configuration file configs/no.yaml does not exist"):
        plan_of({**GRID, "rows": {"few": {"label": "x", "files": ["configs/no.yaml"]}}})


def test_a_start_takes_data_and_backbone_out_of_a_rows_files(tmp_path):
    """In their order: the file's, the command's, the row's own; nothing else of the file."""
    file = tmp_path / "row.yaml"
    file.write_text("dataset: {channels: 32, noise: 0.5}\nbackbone: {name: avst, dropout: 0.2, match_weight: 2}\n"
                    "rmm: {slots: 3}\ntrain: {epochs: 4}\n")
    row = {"label": "x", "files": [str(file)], "overrides": ["backbone.match_weight=8"]}
    run = plan_of({**GRID, "rows": {"few": row}}, overrides=["dataset.noise=0.7"]).tables["table0"]["few"][1]
    start = run.depends_on.config
    assert start["dataset"] == run.config["dataset"] and start["backbone"] == run.config["backbone"]
    assert (start["dataset"]["channels"], start["dataset"]["noise"]) == (32, 0.7)
    assert (start["backbone"]["dropout"], start["backbone"]["match_weight"]) == (0.2, 8)
    assert run.config["train"]["epochs"] == 4 != start["train"]["epochs"] and start["method"]["name"] == "plain"


def test_a_row_may_have_options_for_one_data_set():
    clip = ["dataset.stride=1", "backbone.text=clip"]
    rows = {"few": {"label": "x", "overrides": ["backbone=pstp_net", "method=plain"], "data": {
        "music_avqa": {"files": ["configs/music_avqa_video_split.yaml"], "overrides": clip}}}}
    start, rows_from = ({"synthetic": f"configs/{a}.yaml", "default": f"configs/{b}.yaml"}
                        for a, b in (("embedded_plain", "paper_plain"), ("embedded", "paper")))
    grid = {**GRID, "start": start, "rows_from": rows_from, "rows": rows}
    here = plan_of(grid, seeds=1).tables["table0"]["few"][1]
    real = plan_of(grid, seeds=1, overrides=["dataset=music_avqa", "dataset.root=D"]).tables["table0"]["few"][1]
    assert here.config["backbone"]["text"] == "lstm" and not set(clip) & set(here.arguments)
    for config in (real.config, real.depends_on.config):
        assert (config["dataset"]["stride"], config["backbone"]["text"]) == (1, "clip")
        assert config["dataset"]["annotations"] == "split_video_id"
    assert here.depends_on.arguments[0] == "configs/embedded_plain.yaml"


def test_pstp_net_reads_clip_and_stands_in_both_variants():
    """Table 1: what configs/music_avqa_clip.yaml sets, in every row and start; others read maps."""
    grid = find_grid("table1")[1]
    plan = Plan()
    plan.add_table("table1", grid, 1, ["dataset=music_avqa", "dataset.root=D"])
    clip = compose("configs/music_avqa_clip.yaml", ["dataset.root=D"])
    for row, by_seed in plan.tables["table1"].items():
        for config in (by_seed[1].config, by_seed[1].depends_on.config):
            of_clip = all(config["dataset"][key] == clip["dataset"][key]
                          for key in ("stride", "visual_folder", "visual_layout", "question_features"))
            assert of_clip == row.startswith("pstp_net")
            if of_clip:
                assert config["backbone"]["text"] == "clip"
                assert config["backbone"]["variant"] == ("released" if "released" in row else "paper")


TEXTS = st.sampled_from(["a b", "1", "null", "yes", "feats/x.npz", "[a]"])
VALUES = st.none() | st.booleans() | st.integers(-9, 9) | TEXTS


@given(options=st.dictionaries(st.sampled_from(["stride", "root", "noise"]), VALUES | st.lists(VALUES, max_size=3)))
def test_options_of_a_file_are_the_same_as_overrides(options):
    layer = {"dataset": {"name": "avqa", **options}, "train": {"epochs": 1}}
    assert parse_overrides(as_overrides(layer)) == {"dataset": layer["dataset"]}


@pytest.mark.parametrize("overrides", [[], ["dataset=music_avqa", "dataset.root=DIR"]], ids=["embedded", "real"])
@pytest.mark.parametrize(("table", "models"), [("table1", 5), ("table3", 1), ("table4", 1)])
def test_plain_rows_stand_with_every_fill(table, models, overrides):
    """Side by side on the same data and backbone; the printed figures stand beside each. Table 4
    trains for every fill; the others test one model with each, and take the mean from one pass.
    """
    grid, plan, fills = find_grid(table)[1], Plan(), {}
    plan.add_table(table, grid, 1, overrides)
    for row, by_seed in plan.tables[table].items():
        run = by_seed[1]
        train, method = run.config["train"], run.config["method"]
        if method["name"] != "plain":
            continue
        assert grid.figures(row) and train["select_by"] == ["complete"]
        trained = run if table == "table4" or method["fill"] == "zeros" else run.depends_on
        assert {**method, "fill": "zeros"} == {**trained.config["method"], "fill": "zeros"}
        assert all(run.config[section] == trained.config[section] for section in ("dataset", "backbone"))
        passes = {"zeros": None, "noise": (0, False), "mean": (1, True)}[method["fill"]] if run is not trained else None
        assert (train["epochs"], train["frozen"]) == (passes or (trained.config["train"]["epochs"], False))
        start = trained.depends_on.name
        fills.setdefault((start, json.dumps(run.config["backbone"])), []).append(method["fill"])
    assert len(fills) == models and all(of_model == ["zeros", "noise", "mean"] for of_model in fills.values())


def test_a_table_has_a_schedule_for_each_of_its_data_sets():
    grid = {**GRID, "start": {"synthetic": "configs/embedded_plain.yaml", "music_avqa": None},
            "rows_from": {"synthetic": "configs/embedded.yaml", "music_avqa": "configs/paper.yaml"}}
    plan = Plan()
    plan.add_table("usual", Grid(**grid), 1, [])
    plan.add_table("real", Grid(**grid), 1, ["dataset=synthetic", "dataset=music_avqa"])       # the last one counts
    assert plan.tables["usual"]["few"][1].arguments[0] == "configs/embedded.yaml"
    assert plan.tables["usual"]["few"][1].depends_on.arguments[0] == "configs/embedded_plain.yaml"
    real = plan.tables["real"]["few"][1]
    assert real.arguments[0] == "configs/paper.yaml" and real.depends_on is None
    with pytest.raises(UsageError, match="row .*: the table is for dataset=synthetic or music_avqa, not for .*=avqa"):
        Plan().add_table("other", Grid(**grid), 1, ["dataset.name=avqa"])
    paths = {"synthetic": "configs/embedded.yaml", "default": "configs/paper.yaml"}
    schedule = Grid(**{**grid, "start": None, "rows_from": paths}).schedule(["dataset=avqa"])
    assert schedule == ([], ["configs/paper.yaml"])


def test_several_files_make_one_stage_and_one_schedule():
    """Laid over each other in order; recipes go above them, the row's own files above those."""
    over = ["configs/embedded.yaml", "configs/schedule/six_epochs.yaml"]
    grid = {**GRID, "start": ["configs/embedded_plain.yaml", over], "rows_from": over,
            "recipes": {"default": {"rows": ["configs/recipe/avst.yaml"]}},
            "rows": {"few": {"label": "x", "files": ["configs/ablation/neither.yaml"]}}}
    run = plan_of(grid, seeds=1).tables["table0"]["few"][1]
    assert run.arguments[:4] == [*over, "configs/recipe/avst.yaml", "configs/ablation/neither.yaml"]
    assert run.depends_on.arguments[:2] == over and run.depends_on.config["train"]["epochs"] == 6
    assert run.depends_on.depends_on.arguments[0] == "configs/embedded_plain.yaml"


def test_a_run_takes_the_recipes_that_are_for_its_components():
    avst, prompts = "configs/recipe/avst.yaml", "configs/recipe/prompts.yaml"
    all_of_them = {"start": ["configs/recipe/avsd.yaml", avst], "rows": [prompts, "configs/recipe/shaspec.yaml"]}
    rows = {"prompts": {"label": "x", "overrides": ["method=prompts"]},
            "same": {"label": "x", "overrides": ["method=prompts"], "recipe": False},
            "dropout": GRID["rows"]["dropout"]}
    grid = {**GRID, "rows": rows, "recipes": {"default": all_of_them, "synthetic": {"rows": [prompts]}}}
    expected = {"dataset=music_avqa": {"prompts": ([avst], [prompts]), "same": ([], []), "dropout": ([avst], [])},
                "dataset=synthetic": {"prompts": ([], [prompts]), "same": ([], []), "dropout": ([], [])}}
    for data, of_rows in expected.items():
        runs = plan_of(grid, seeds=1, overrides=[data, "dataset.root=x"]).tables["table0"]
        for row, files in of_rows.items():
            for run, recipes in zip((runs[row][1].depends_on, runs[row][1]), files, strict=True):
                assert [a for a in run.arguments[1:] if "=" not in a] == recipes
                assert run.arguments[0].startswith("configs/embedded")


def test_a_recipe_counts_in_the_digest_and_a_row_wins_over_it():
    rows = {"own": {"label": "x", "overrides": ["method=prompts"]},
            "slow": {"label": "x", "overrides": ["method=prompts", "train.learning_rate=0.001"]},
            "same": {"label": "x", "overrides": ["method=prompts"], "recipe": False}}
    recipes = {"synthetic": {"rows": ["configs/recipe/prompts.yaml"]}}
    plan = plan_of({**GRID, "rows": rows, "recipes": recipes}, seeds=1)
    runs = [plan.tables["table0"][row][1] for row in rows]
    assert len({run.digest for run in runs}) == 3 and len({run.depends_on.name for run in runs}) == 1
    rates = [resolved(run.arguments)["train"]["learning_rate"] for run in runs]
    assert rates == [0.01, 0.001, 0.0005]


def test_a_table_without_a_start_and_one_with_more_scenarios():
    """The same runs are trained; their models are then tested in all scenarios."""
    usual = {**GRID, "start": None}
    plan = plan_of(usual, {**usual, "scenarios": ["complete", "both_missing"]}, seeds=1)
    assert len(plan.runs) == 4
    for row in GRID["rows"]:
        trained, tested = (plan.tables[table][row][1] for table in ("table0", "table1"))
        assert trained.depends_on is None and tested.depends_on is trained
        assert tested.scenarios == ["complete", "audio_missing", "visual_missing", "both_missing"]
        train = {**trained.config["train"], "epochs": 0, "init_method": True, "init": str(trained.folder / "best.pt")}
        assert tested.config == {**trained.config, "train": train, "evaluate": tested.config["evaluate"]}


def test_a_row_may_have_files_and_a_start_of_its_own():
    rows = {**GRID["rows"], "own": {"label": "x", "rows_from": "configs/plugin.yaml", "start": ["train.epochs=2"],
                                    "overrides": ["dataset.train_questions=0.5"]}}
    runs = plan_of({**GRID, "rows": rows}, seeds=1).tables["table0"]
    own, start = runs["own"][1], runs["own"][1].depends_on
    assert own.arguments[0] == "configs/plugin.yaml" and own.config["train"]["frozen"]
    assert start.arguments[0] == "configs/embedded_plain.yaml" and start.config["train"]["epochs"] == 2
    assert start.config["dataset"] == own.config["dataset"] != runs["few"][1].config["dataset"]
    assert runs["few"][1].arguments[0] == "configs/embedded.yaml" and runs["few"][1].depends_on is not start


SLOTS = {f"k{k}": {"label": "x", "overrides": [f"rmm.slots={k}"]} for k in range(5, 9)}
SHARDED = plan_of(GRID, {**GRID, "rows": SLOTS}, seeds=3)


@settings(deadline=None)
@given(count=st.integers(1, 30))
def test_shards_are_a_partition_with_their_starts(count):
    starts = {run.depends_on.name for run in SHARDED.runs.values() if run.depends_on}
    shards = [SHARDED.shard(i, count) for i in range(1, count + 1)]
    rows = [run.name for shard in shards for run in shard if run.name not in starts]
    assert sorted(rows) == sorted(set(SHARDED.runs) - starts)              # each once
    for shard in shards:
        names = [run.name for run in shard]
        for run in shard:
            assert run.depends_on is None or names.index(run.depends_on.name) < names.index(run.name)
    sizes = [sum(run.name not in starts for run in shard) for shard in shards]
    assert max(sizes) - min(sizes) <= 1


def test_plan_lines_say_all_that_a_scheduler_needs():
    lines = [json.loads(json.dumps(plan_line(run, 61.26))) for run in SHARDED.shard(1, 1)]
    seen = set()
    for line in lines:
        assert set(line) == {"name", "command", "done", "seconds", "depends_on", "users"}
        assert line["users"] and not line["done"] and line["seconds"] == 61.3
        assert line["command"].startswith("python main_train.py configs/")
        assert f"run.name={line['name']}" in line["command"]
        assert set(line["depends_on"]) <= seen
        assert all(f"runs/{start}/best.pt" in line["command"] for start in line["depends_on"])
        seen.add(line["name"])
    assert seen == set(SHARDED.runs)
