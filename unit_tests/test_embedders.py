"""Embedders are found by name, give one text one vector, and say what to install where they are absent."""

import copy
import pickle
import subprocess
import sys
import types

import numpy as np
import pytest

from langchain_rlfocal import embedders
from langchain_rlfocal.embedders import load_embedder
from langchain_rlfocal.errors import InputError, MissingDependencyError
from langchain_rlfocal.features import FEATURES_DIM, features_of


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


def test_a_function_of_the_users_is_called_and_its_embedder_used(own):
    assert load_embedder("own_embedders:counting").embed_documents(["ab", ""]) == [[2.0, 1.0], [0.0, 1.0]]


def test_an_embedder_is_pickled_by_its_name_whatever_it_holds(own):
    embedder = load_embedder("own_embedders:counting")
    assert repr(embedder) == "load_embedder('own_embedders:counting')"
    for twin in (pickle.loads(pickle.dumps(embedder)), copy.deepcopy(embedder), copy.copy(embedder)):
        assert repr(twin) == repr(embedder)
        assert twin.embed_documents(["abc"]) == [[3.0, 1.0]]


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
    embedders._wordllama.cache_clear()
    yield
    embedders._wordllama.cache_clear()


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

    embedders._WordLlama(types.SimpleNamespace(embed=embed)).embed_documents(["short", "long " * 4000])
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
        texts = ["What is 2 + 3?", "", "  ", "naïve 北京 🙂", "long " * 4000]
        together = embedder.embed_documents(texts)
        assert together == [embedder.embed_documents([text])[0] for text in texts]
        assert np.isfinite(together).all()

    def test_half_a_surrogate_pair_is_no_obstacle(self, embedder):
        assert np.isfinite(embedder.embed_documents(["\ud800 half"])).all()

    def test_no_text_gives_no_vector(self, embedder):
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
from langchain_rlfocal.embedders import load_embedder
assert len(load_embedder("wordllama").embed_documents(["x"])[0]) == 256
assert "torch" not in sys.modules
"""
        subprocess.run([sys.executable, "-c", program], check=True)
