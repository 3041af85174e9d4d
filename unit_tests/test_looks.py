"""How options are written: found in any style, measured by hand, and the same in other letters and blanks."""

import numpy as np
import pytest

from langchain_rlfocal.policies.looks import LOOK_NAMES, looks_of, looks_of_options, options_in

TEXTS = [
    "Which?\n(A) One\n(B) two words\n(C) 3",
    "which?  a) one b) two words c) 3",
    "Which? A. One\nB. two words\nC. 3\n\nThink.",
]


@pytest.mark.parametrize("text", TEXTS)
def test_options_are_found_in_any_style(text):
    assert options_in(text) == {"A": "one", "B": "two words", "C": "3"}


def test_numbers_mark_options_too_and_one_mark_or_a_gap_is_no_list():
    assert options_in("Which?\n1. one\n2. two") == {"1": "one", "2": "two"}
    assert options_in("Plan (A) is all there is.") == {}
    assert options_in("See (A) and (C) here.") == {}
    assert options_in("") == {}


def test_the_last_of_two_lists_as_long_counts():
    assert options_in("(A) x (B) y\nNow choose:\n(A) left\n(B) right") == {"A": "left", "B": "right"}


def test_lengths_by_hand():
    """1, 1 and e² · 2 - 1 characters would be logs of ln 2, ln 2, ln 2 + 2; here 1, 1 and 7: ln 2, ln 2, ln 8; mean 5/3 ln 2."""
    looks = looks_of_options("?\n(A) x\n(B) y\n(C) abc-defg")
    ln2 = np.log(2)
    np.testing.assert_allclose([looks[k][0] for k in "ABC"], np.array([1, 1, 3]) * ln2 - 5 / 3 * ln2)
    assert [looks[k][1] for k in "ABC"] == [0, 0, 1]
    shared = looks_of_options("?\n(A) one\n(B) two\n(C) x")
    assert [shared[k][1] for k in "ABC"] == [0.5, 0.5, 0]


def test_the_middle_number_is_central_and_the_ends_are_extreme():
    """Ranks 0, ½, 1 of -2, 3.5 and 1,000: 1 - 4r² is 0, 1, 0 with mean ⅓; the ends have mean ⅔."""
    looks = looks_of_options("?\n(A) 1,000 m\n(B) -2 m\n(C) 3.5 m")
    np.testing.assert_allclose([looks[k][2] for k in "ABC"], [-1 / 3, -1 / 3, 2 / 3])
    np.testing.assert_allclose([looks[k][3] for k in "ABC"], [1 / 3, 1 / 3, -2 / 3])


@pytest.mark.parametrize("options", ["(A) 1\n(B) two\n(C) 3", "(A) 1\n(B) 2\n(C) 2", "(A) 1\n(B) 2"])
def test_where_not_all_have_a_number_or_few_differ_no_number_is_seen(options):
    assert all(one[2:] == (0, 0) for one in looks_of_options(f"?\n{options}").values())


def test_case_blanks_and_marks_change_nothing():
    one, two = (looks_of_options(text) for text in ("Which?\n(A) Ten  Men\n(B) 9", "WHICH?\nA) TEN MEN \nB) 9."))
    assert one == two


def test_looks_go_to_the_candidates_that_name_an_option():
    labels = np.array([["B", None, "none"], ["B", "A", None]], dtype=object)
    looks = looks_of(["Which?\n(A) x\n(B) abcdefg", "How many?"], labels)
    assert looks.shape == (2, 3, len(LOOK_NAMES))
    np.testing.assert_allclose(looks[0, 0, :2], [np.log(2), 1])
    assert not looks[0, 1:].any()
    assert not looks[1].any()
    assert looks_of(["How many?"], labels[:1]) is None


@pytest.mark.parametrize(
    "text",
    [
        "(A) " + "9" * 400 + "\n(B) 1\n(C) 2",
        "(A) " * 5000,
        "(A) \n(B) ",
        "(A) .\n(B) -\n(C) 1..2",
        "(A) \ud800 (B) −5 (C) 1",
    ],
)
def test_odd_texts_give_finite_looks(text):
    for one in looks_of_options(text).values():
        assert np.isfinite(one).all()
