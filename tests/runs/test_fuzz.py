"""A few random inputs to the commands' own entry points; scripts/fuzz.py has no end of them."""

from scripts.fuzz import KINDS, fuzz, is_well


def test_random_input_ends_in_one_line_or_a_result(tmp_path):
    """Each kind three times: exit code 0, or 2 with one error line."""
    ends, bad = fuzz(tmp_path, 0, range(3 * len(KINDS)), list(KINDS))
    assert bad == [] and sum(ends.values()) == 3 * len(KINDS)
    assert {code for _, code in ends} <= {0, 1, 2}


def test_a_traceback_or_another_exit_code_is_no_good_end():
    train = ["main_train.py"]
    assert is_well(train, 0, "") and is_well(train, 2, "error: x\n")
    assert not is_well(train, 2, "") and not is_well(train, 2, "error: x\nerror: y\n")
    assert not is_well(train, 1, "error: x\n") and not is_well(train, "KeyError", "Traceback")
