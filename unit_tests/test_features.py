"""Query features are deterministic, bounded and total."""

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.features import FEATURES_DIM, MAX_CHARS, SURFACE_NAMES, features_of, query_features


@given(st.text(max_size=300), st.none() | st.text(max_size=30))
def test_any_text_gives_a_finite_vector_with_surface_in_the_unit_interval(text, task):
    vector = query_features(text, task)
    assert vector.shape == (FEATURES_DIM,)
    assert np.isfinite(vector).all()
    surface = vector[: len(SURFACE_NAMES)]
    assert ((surface >= 0) & (surface <= 1)).all()


def test_lone_surrogates_and_nul_bytes_are_only_text():
    assert np.isfinite(query_features("\ud800 \x00 word", "\udfff/task")).all()


def test_word_and_task_blocks_have_length_one_or_zero():
    vector = query_features("What is the capital of France?", "local/capitals")
    words, tasks = vector[len(SURFACE_NAMES) : -64], vector[-64:]
    np.testing.assert_allclose([np.linalg.norm(words), np.linalg.norm(tasks)], 1.0)
    assert not query_features("", None)[len(SURFACE_NAMES) :].any()


def test_sibling_tasks_are_closer_than_strangers():
    law, history, sums = (query_features("", task)[-64:] for task in ("mmlu/law", "mmlu/history", "gsm/sums"))
    assert law @ history > law @ sums


def test_the_question_s_shape_is_seen():
    def surface(text):
        return dict(zip(SURFACE_NAMES, query_features(text), strict=False))

    assert surface("Is the sun a star?")["yes_no"] == 1
    assert surface("Name a star.")["yes_no"] == 0
    assert surface("Which?\nA) one\nB) two\nC) three")["options"] == 0.3
    assert surface("2 + 2 = ?")["numbers"] == 0.2


def test_text_beyond_the_cap_changes_nothing():
    head = "word " * (MAX_CHARS // 5)
    np.testing.assert_array_equal(query_features(head), query_features(head + "tail"))


def test_another_process_computes_the_same():
    """Python's own `hash` of a string differs from process to process; the features must not."""
    code = (
        "from langchain_rlfocal.features import query_features; import hashlib; "
        "print(hashlib.sha256(query_features('Which of 3 apples?', 'a/b').tobytes()).hexdigest())"
    )
    runs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(runs) == 1


def test_no_queries_give_an_empty_matrix():
    assert features_of([], []).shape == (0, FEATURES_DIM)
