"""Features of queries, and the embedders that add to them."""

import copy
import pickle
import subprocess
import sys
import types

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from langchain_rlfocal import features
from langchain_rlfocal.errors import InputError, MissingDependencyError
from langchain_rlfocal.features import (
    FEATURES_DIM,
    HASHED_TASKS,
    HASHED_WORDS,
    MAX_CHARS,
    SURFACE_NAMES,
    WORDS_SCALE,
    features_of,
    load_embedder,
    query_features,
    task_features,
)

# ---- Query features are deterministic, bounded and total


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


@example("\ud800 \x00 word", "\udfff/task")
@given(st.text(max_size=300), st.none() | st.text(max_size=30))
def test_any_text_gives_a_finite_vector_with_surface_in_the_unit_interval(text, task):
    vector = query_features(text, task)
    assert vector.shape == (FEATURES_DIM,)
    assert np.isfinite(vector).all()
    surface = vector[: len(SURFACE_NAMES)]
    assert ((surface >= 0) & (surface <= 1)).all()


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Is the sun a star?", {"yes_no": 1}),
        ("It rained. Was it cold?", {"yes_no": 1}),
        ("The rain was cold", {"yes_no": 0}),
        ("Answer true or FALSE.", {"yes_no": 1}),
        ("Untrue or false", {"yes_no": 0}),
        ("Tell me:\n  does it", {"yes_no": 1}),
        ("Name an island.", {"yes_no": 0}),
        ("Can a fish fly?", {"yes_no": 1}),
        ("Can you name a fish?", {"yes_no": 0}),
        ("Is it?", {"yes_no": 1, "mean_word_length": 2 / 12}),  # nothing but manner: all of it counts
        ("Which?\nA) one\nB) two\nC) three", {"options": 0.3}),
        ("(A) one (B. two A)no XC) no D) no", {"options": 0.2}),
        ("Vitamin A. Nothing. C) no", {"options": 0}),  # a mark alone, and one that misses its predecessor
        ("1. red 2. green 3. blue 2. none", {"options": 0.3, "numbers": 0}),
        ("A: 1) one B: 2) two 3) three", {"options": 0.2}),  # letters before numbers
        ("2 + 2 = ?", {"numbers": 0.2}),
        ('He said "no".', {"quoted": 1}),
        ("He said no.", {"quoted": 0}),
        # Words `ab` and `12`, two letters each, beside one character of code and one comma.
        ("AB 12, =", {"digit_share": 2 / 4, "code_share": 1 / 5, "comma_share": 1 / 4, "mean_word_length": 2 / 12}),
        ("ab12_éé٣x", {"mean_word_length": 7 / 4 / 12}),  # ab, 12, éé and ٣; x is a letter alone
        # `could you` and `the answer` say how it is put; `of` stands between what is asked.
        ("Could you name capitals of Peru? The answer!", {"mean_word_length": 18 / 4 / 12}),
    ],
)
def test_surface_features_match_hand_worked_ones(text, expected):
    seen = surface(text)
    assert {name: seen[name] for name in expected} == pytest.approx(expected)


QUESTION = 'Which of 12 metals, "pure", melts first?\nA) gold\nB) mercury\nC) iron is the same\nAnswer:'


@pytest.mark.parametrize(
    "text",
    [
        QUESTION.lower(),
        QUESTION.upper(),
        QUESTION.replace(")", ":"),
        QUESTION.replace(")", "."),
        'Which of 12 metals, "pure", melts first? (a) gold (b) mercury (c) iron is the same Answer',
        'Which of 12 metals, "pure", melts first?\n[1] gold\n[2] mercury\n[3] iron is the same',
        QUESTION.replace("\n", "\n\n").replace(" ", "   "),
        f"Hello! Could you please help me with this question? {QUESTION}",
        f"{QUESTION}\n\nThink step by step and explain your reasoning. Thanks in advance!",
        QUESTION.replace("Answer:", "Answer?!"),
        'Whihc of 12 metals, "prue", metls fisrt?\nA) glod\nB) mecrury\nC) iron is the smae\nAnwser:',
    ],
)
def test_the_same_question_written_otherwise_has_the_same_features(text):
    np.testing.assert_array_equal(query_features(text), query_features(QUESTION))


@pytest.mark.parametrize(
    ("old", "new"),
    [("metals", "planets"), ("first", "last"), ("\nC) iron is the same", ""), ("12", "100")],
)
def test_another_question_has_other_features(old, new):
    assert np.abs(query_features(QUESTION.replace(old, new)) - query_features(QUESTION)).max() > 0.005


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


def test_features_of_many_are_those_of_each_and_of_none_an_empty_matrix():
    texts, tasks = ["One?", "Two?"], ["a/b", None]
    stacked = np.stack([query_features(text, task) for text, task in zip(texts, tasks, strict=True)])
    np.testing.assert_array_equal(features_of(texts, tasks), stacked)
    assert features_of([], []).shape == (0, FEATURES_DIM)
    assert features_of([], [], embedder=Lengths()).shape == (0, FEATURES_DIM + 2)


def test_an_embedder_s_vectors_come_last_at_the_length_of_words():
    """Lengths 3 and 4 beside a 1: (3, 1) / √10 and (4, 1) / √17, scaled."""
    features = features_of(["abc", "abcd"], [None, None], embedder=Lengths())
    np.testing.assert_array_equal(features[:, :FEATURES_DIM], features_of(["abc", "abcd"], [None, None]))
    expected = WORDS_SCALE * np.array([[3, 1], [4, 1]]) / np.sqrt([[10], [17]])
    np.testing.assert_allclose(features[:, FEATURES_DIM:], expected)
    long = features_of(["a" * (MAX_CHARS + 5)], [None], embedder=Lengths())[0]
    np.testing.assert_allclose(long[FEATURES_DIM] / long[FEATURES_DIM + 1], MAX_CHARS)  # of a text no more than the cap
    assert not features_of(["a"], [None], embedder=Fixed([[0.0, 0.0]]))[:, FEATURES_DIM:].any()


@pytest.mark.parametrize("vectors", [[[1.0]], [1.0, 2.0], [[1.0], [1.0, 2.0]], [[np.nan], [1.0]], [[np.inf], [1.0]]])
def test_an_embedder_that_does_not_give_one_finite_vector_each_is_refused(vectors):
    with pytest.raises(InputError, match=r"one finite vector of one length per text, got shape .* for 2 texts"):
        features_of(["a", "b"], [None, None], embedder=Fixed(vectors))


# ---- Embedders are found by name, give one text one vector, and say what to install where they are absent


class Counting:
    """Not to be pickled: it holds a lambda."""

    def __init__(self):
        self.length = lambda text: [float(len(text)), 1.0]

    def embed_documents(self, texts):
        return [self.length(text) for text in texts]


@pytest.fixture
def own(monkeypatch):
    """A module of a user's, with functions that are right and wrong."""

    def fails():
        raise OSError("no such file")

    module = types.ModuleType("own_embedders")
    module.counting, module.fails, module.text, module.number = Counting, fails, lambda: "text", 3
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_an_embedder_is_found_and_pickled_by_its_name(own):
    embedder = load_embedder("own_embedders:counting")
    for twin in (embedder, pickle.loads(pickle.dumps(embedder)), copy.deepcopy(embedder), copy.copy(embedder)):
        assert repr(twin) == "load_embedder('own_embedders:counting')"
        assert twin.embed_documents(["ab", ""]) == [[2.0, 1.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "must be `wordllama` or package.module:function, got ''"),
        ("word-llama", "got 'word-llama'"),
        ("own_embedders:", "got 'own_embedders:'"),
        (":counting", "got ':counting'"),
        ("no_such_module:f", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("own_embedders:nobody", "AttributeError: .*nobody"),
        ("own_embedders:number", "TypeError: 'int' object is not callable"),
        ("own_embedders:fails", "OSError: no such file"),
        ("own_embedders:text", "must return an object with `embed_documents`, got str"),
    ],
)
def test_a_name_that_names_no_embedder_is_refused(own, name, message):
    with pytest.raises(InputError, match=message):
        load_embedder(name)


@pytest.fixture
def nothing_remembered():
    features._wordllama.cache_clear()
    yield
    features._wordllama.cache_clear()


def test_without_the_package_the_command_that_installs_it_is_named(nothing_remembered, monkeypatch):
    monkeypatch.setitem(sys.modules, "wordllama", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'langchain-rlfocal\[wordllama\]'"):
        load_embedder("wordllama")


def test_a_package_without_its_files_is_as_good_as_none(nothing_remembered, monkeypatch, tmp_path):
    """It must not go looking for them on a hub."""
    asked = {}

    def load(**arguments):
        asked.update(arguments)
        raise FileNotFoundError("Tokenizer file not found")

    package = types.ModuleType("wordllama")
    package.__file__, package.WordLlama = str(tmp_path / "__init__.py"), types.SimpleNamespace(load=load)
    monkeypatch.setitem(sys.modules, "wordllama", package)
    with pytest.raises(MissingDependencyError, match="Tokenizer file not found"):
        load_embedder("wordllama")
    assert asked == {"cache_dir": tmp_path, "disable_download": True}


def test_texts_are_not_padded_to_the_longest_of_a_batch():
    asked = {}

    def embed(texts, **arguments):
        asked.update(arguments)
        return np.zeros((len(texts), 256))

    features._WordLlama(types.SimpleNamespace(embed=embed)).embed_documents(["short", "long " * 4000])
    assert asked == {"batch_size": 1}


class TestWordLlama:
    @pytest.fixture(autouse=True)
    def embedder(self):
        pytest.importorskip("wordllama", reason="the extra `wordllama` is not installed")
        return load_embedder("wordllama")

    def test_it_embeds_near_what_means_the_like(self, embedder):
        """Cosines: a cat is nearer to a dog than to a tax."""
        cat, dog, tax = np.array(embedder.embed_documents(["a small cat", "a little dog", "income tax law"]))
        norms = {name: np.linalg.norm(v) for name, v in (("cat", cat), ("dog", dog), ("tax", tax))}
        assert cat @ dog / norms["cat"] / norms["dog"] > cat @ tax / norms["cat"] / norms["tax"]
        assert len(cat) == 256

    def test_a_texts_vector_does_not_depend_on_its_company(self, embedder):
        """Training embeds thousands at once, serving one: a companion must not change how sums are rounded."""
        texts = ["What is 2 + 3?", "", "  ", "naïve 北京 🙂", "long " * 4000, "\ud800 half"]
        together = embedder.embed_documents(texts)
        assert together == [embedder.embed_documents([text])[0] for text in texts]
        assert np.isfinite(together).all()
        assert embedder.embed_documents([]) == []

    def test_it_joins_the_features(self, embedder):
        """The block of the embedding has length 0.2, or 0 where the text has no token."""
        features = features_of(["one text", ""], [None, None], embedder=embedder)
        assert features.shape == (2, FEATURES_DIM + 256)
        np.testing.assert_allclose(np.linalg.norm(features[:, FEATURES_DIM:], axis=1), [0.2, 0.0], atol=1e-6)

    def test_it_loads_neither_torch_nor_anything_from_the_network(self):
        program = """
import socket, sys
def refuse(*_):
    raise AssertionError("a connection was asked for")
socket.socket.connect = refuse
from langchain_rlfocal.features import load_embedder
assert len(load_embedder("wordllama").embed_documents(["x"])[0]) == 256
assert "torch" not in sys.modules
"""
        subprocess.run([sys.executable, "-c", program], check=True)
