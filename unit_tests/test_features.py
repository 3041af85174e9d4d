"""Query features are deterministic, bounded and total."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.features import (
    FEATURES_DIM,
    HASHED_TASKS,
    HASHED_WORDS,
    MAX_CHARS,
    SURFACE_NAMES,
    WORDS_SCALE,
    features_of,
    query_features,
    task_features,
)

WORDS = slice(len(SURFACE_NAMES), len(SURFACE_NAMES) + HASHED_WORDS)
TASKS = slice(len(SURFACE_NAMES) + HASHED_WORDS, FEATURES_DIM)


def surface(text):
    return dict(zip(SURFACE_NAMES, query_features(text), strict=False))


class Lengths:
    """Embeds a text as its length and 1."""

    def embed_documents(self, texts):
        return [[float(len(text)), 1.0] for text in texts]


class Fixed:
    def __init__(self, vectors):
        self.vectors = vectors

    def embed_documents(self, texts):
        return self.vectors


@given(st.text(max_size=300), st.none() | st.text(max_size=30))
def test_any_text_gives_a_finite_vector_with_surface_in_the_unit_interval(text, task):
    vector = query_features(text, task)
    assert vector.shape == (FEATURES_DIM,)
    assert np.isfinite(vector).all()
    surface = vector[: len(SURFACE_NAMES)]
    assert ((surface >= 0) & (surface <= 1)).all()


def test_lone_surrogates_and_nul_bytes_are_only_text():
    assert np.isfinite(query_features("\ud800 \x00 word", "\udfff/task")).all()


def test_word_and_task_blocks_have_their_length_or_none():
    vector = query_features("What is the capital of France?", "local/capitals")
    np.testing.assert_allclose(np.linalg.norm(vector[WORDS]), WORDS_SCALE)
    np.testing.assert_allclose(np.linalg.norm(vector[TASKS]), 1.0)
    assert not query_features("", None)[len(SURFACE_NAMES) :].any()
    assert not task_features("").any()


def test_a_task_shares_half_of_itself_with_its_sibling():
    """`a/b` is two prefixes in two places each, ±½; `a/c` shares the two of `a`: ¼ + ¼. A stranger shares nothing."""
    law, history, sums = map(task_features, ("mmlu/law", "mmlu/history", "gsm/sums"))
    assert law.shape == (HASHED_TASKS,)
    np.testing.assert_allclose(np.sort(np.abs(law))[-5:], [0, 0.5, 0.5, 0.5, 0.5])
    np.testing.assert_allclose([law @ history, law @ sums], [0.5, 0])


def test_words_and_pairs_count_once_whatever_their_case():
    """`red Red` has one word and one pair, in two places; a third `red` changes nothing."""
    block = query_features("red Red")[WORDS]
    np.testing.assert_allclose(np.sort(np.abs(block))[-3:], [0, WORDS_SCALE / np.sqrt(2), WORDS_SCALE / np.sqrt(2)])
    np.testing.assert_array_equal(query_features("RED red red")[WORDS], block)


def test_the_question_s_shape_is_seen():
    assert surface("Is the sun a star?")["yes_no"] == 1
    assert surface("It rained. Was it cold?")["yes_no"] == 1
    assert surface("Answer true or false.")["yes_no"] == 1
    assert surface("Name a star.")["yes_no"] == 0
    assert surface("Which?\nA) one\nB) two\nC) three")["options"] == 0.3
    assert surface("2 + 2 = ?")["numbers"] == 0.2
    assert surface("2 + 2 = ?")["question_mark"] == 1
    assert surface('He said "no".')["quoted"] == 1
    assert surface("He said no.")["quoted"] == 0


def test_shares_and_lengths_match_hand_worked_ones():
    """`AB 12 =` has 7 characters: 2 digits, 2 capitals, 1 of code; words `ab` and `12`, 2 letters each; no line break."""
    seen = surface("AB 12 =")
    for name, expected in (
        ("digit_share", 2 / 7),
        ("upper_share", 2 / 7),
        ("code_share", 1 / 7),
        ("mean_word_length", 2 / 12),
        ("length", np.log(8) / 10),
        ("words", np.log(3) / 8),
        ("lines", 0),
    ):
        np.testing.assert_allclose(seen[name], expected, err_msg=name)
    np.testing.assert_allclose(surface("a\nb\nc")["lines"], np.log(3) / 5)


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


def test_features_of_many_are_those_of_each():
    texts, tasks = ["One?", "Two?"], ["a/b", None]
    stacked = np.stack([query_features(text, task) for text, task in zip(texts, tasks, strict=True)])
    np.testing.assert_array_equal(features_of(texts, tasks), stacked)


def test_an_embedder_s_vectors_come_last_at_the_length_of_words():
    """Lengths 3 and 4 beside a 1: (3, 1) / √10 and (4, 1) / √17, scaled."""
    features = features_of(["abc", "abcd"], [None, None], embedder=Lengths())
    np.testing.assert_array_equal(features[:, :FEATURES_DIM], features_of(["abc", "abcd"], [None, None]))
    expected = WORDS_SCALE * np.array([[3, 1], [4, 1]]) / np.sqrt([[10], [17]])
    np.testing.assert_allclose(features[:, FEATURES_DIM:], expected)


def test_an_embedder_reads_no_more_of_a_text_than_the_cap():
    features = features_of(["a" * (MAX_CHARS + 5)], [None], embedder=Lengths())
    np.testing.assert_allclose(features[0, FEATURES_DIM] / features[0, FEATURES_DIM + 1], MAX_CHARS)


def test_a_vector_of_zeros_stays_one():
    assert not features_of(["a"], [None], embedder=Fixed([[0.0, 0.0]]))[:, FEATURES_DIM:].any()


@pytest.mark.parametrize("vectors", [[[1.0]], [1.0, 2.0], [[1.0], [1.0, 2.0]], [[np.nan], [1.0]], [[np.inf], [1.0]]])
def test_an_embedder_that_does_not_give_one_finite_vector_each_is_refused(vectors):
    with pytest.raises(InputError, match=r"one finite vector of one length per text, got shape .* for 2 texts"):
        features_of(["a", "b"], [None, None], embedder=Fixed(vectors))
