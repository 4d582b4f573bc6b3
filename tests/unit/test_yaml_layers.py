"""Texts of any kind as options: plain values, or one error that says what is wrong."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import compose, run_folder
from engine.errors import UsageError
from engine.yaml_layers import fill_in, overlay, parse_yaml

PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4)
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3)
                      | st.dictionaries(st.text(max_size=5), inner, max_size=3))
KEYS = ["train.epochs", "train.select_by", "run.name", "rmm", "rmm.slots", "method", "dataset", "backbone.name",
        "train", "for"]


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(KEYS), st.text(max_size=30))
def test_an_override_is_taken_or_refused(key, text):
    try:
        assert compose(None, [f"{key}={text}"])["train"]["epochs"] > 0
    except UsageError as error:
        assert "\n" not in str(error)


@settings(deadline=None, max_examples=150)
@given(VALUES)
def test_any_value_is_filled_in_or_refused(value):
    try:
        assert fill_in(value, {}) is not ...
    except UsageError as error:
        assert len(str(error)) < 500


@pytest.mark.parametrize("override", ["run.name=@home", "train.select_by=[complete", "rmm=[1]", "train.select_by={}",
                                      "dataset=[1]", "method={x: 1}", "train=5", "a..b=1", "=1", "rmm.slots=!!int x",
                                      "run.name=!!binary AAAA", "train.learning_rate=.inf", "run.root='\x07'"])
def test_malformed_overrides_are_one_line(override):
    with pytest.raises(UsageError) as caught:
        compose(None, [override])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("text, reason", [
    ("[" * 100_000, "nested more than 20 levels"), ("[" * 900 + "]" * 900, "nested more than 20 levels"),
    ("a: &x [1]\nb: [*x, *x]", "alias"), ("x" * 4000, "4,000 characters"), ("# " + "x" * 200_000, "200,002 characters"),
    ("a: [", "not valid YAML"), ("a: 1\na: 2", "not valid YAML"), (b"\xff\xfe\xfa", "not valid YAML"),
])
def test_texts_beyond_bounds_are_refused(text, reason):
    with pytest.raises(UsageError, match=reason):
        parse_yaml(text, "file x")


@pytest.mark.parametrize("text", ["5", "- 1\n- 2", "text"])
def test_a_file_that_holds_no_mapping_is_refused(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UsageError, match="must hold key: value pairs"):
        compose(str(tmp_path / "a.yaml"), [])


def test_a_long_value_is_repeated_in_part():
    with pytest.raises(UsageError) as caught:
        compose(None, [f"train.epochs={'x' * 2000}"])
    assert "x" * 150 in str(caught.value) and len(str(caught.value)) < 400


def test_references_are_to_plain_options_alone(monkeypatch):
    """No environment variable is read, and no reference leads to another one."""
    monkeypatch.setenv("SECRET", "told")
    config = compose(None, ["run.root=a", "train.init=${run.root}/${train.seed}.pt"])
    assert config["train"]["init"] == "a/1.pt"
    for value in ("${oc.env:SECRET}", "${run}", "${run.nothing}", "${train.init}", "${", "${a.${b}}"):
        with pytest.raises(UsageError) as caught:
            compose(None, [f"train.init='{value}'"])
        assert "told" not in str(caught.value)


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/../../b", "."])
def test_a_run_stays_inside_its_root(name):
    with pytest.raises(UsageError, match="inside run.root"):
        run_folder(compose(None, [f"run.name={name}"]))
    assert str(run_folder(compose(None, ["run.name=a/b"]))) == "runs/a/b"


def test_numbers_and_lists_are_read_as_ever():
    train = compose(None, ["train.learning_rate=1e-3", "train.select_by=[complete]", "train.init=x=y"])["train"]
    assert (train["learning_rate"], train["select_by"], train["init"]) == (1e-3, ["complete"], "x=y")
    assert overlay({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 3}, "d": [2]}) == {"a": {"b": 3, "c": 2}, "d": [2]}
