"""Embedders: find, by its name, what turns queries into vectors.

A name can be written in a command or a configuration, an object cannot. `"wordllama"` is the static embedding whose weights
come with the package of that name: 256 dimensions, a millisecond or less for a query, no network, no torch. Any other name
is `package.module:function`, a function without arguments that returns an embedder.

It downloads nothing and remembers no vectors.
"""

import importlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from langchain_rlfocal.errors import InputError, MissingDependencyError
from langchain_rlfocal.features import Embedder

WORDLLAMA = "wordllama"
"""Name of the embedder whose weights come in a package."""


class NamedEmbedder:
    """An embedder and the name that it can be loaded by; it is copied and pickled by that name.

    Attributes:
        name: The name.
    """

    def __init__(self, name: str, embedder: Embedder) -> None:
        self.name, self._embedder = name, embedder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed N texts, shape [N, E]; the same text gives the same vector."""
        return self._embedder.embed_documents(texts)

    def __reduce__(self) -> tuple[Callable[[str], Embedder], tuple[str]]:
        return load_embedder, (self.name,)

    def __repr__(self) -> str:
        return f"load_embedder({self.name!r})"


def load_embedder(name: str) -> Embedder:
    """Load an embedder by its name.

    Args:
        name: `"wordllama"`, or `package.module:function`.

    Returns:
        The embedder. It is copied and pickled by its name.

    Raises:
        MissingDependencyError: `wordllama` is not installed, or not whole.
        InputError: The name is neither, names nothing that can be called, or the call gives no embedder.
    """
    if name == WORDLLAMA:
        return NamedEmbedder(name, _wordllama())
    module, colon, function = name.partition(":")
    if not (module and colon and function):
        raise InputError(f"An embedder's name must be `{WORDLLAMA}` or package.module:function, got {name!r}.")
    try:
        made = getattr(importlib.import_module(module), function)()
    except Exception as error:  # a function of the caller's may raise anything
        raise InputError(
            f"The embedder `{name}` must name a function that can be imported and called without arguments, got "
            f"{type(error).__name__}: {error}. Correct the name, or the function."
        ) from error
    if not callable(getattr(made, "embed_documents", None)):
        raise InputError(
            f"The embedder `{name}` must return an object with `embed_documents`, got {type(made).__name__}. "
            "Return for example a LangChain `Embeddings`."
        )
    return NamedEmbedder(name, made)


class _WordLlama:
    """Adapts wordllama's model.

    Each text is embedded by itself: a batch is padded to its longest text, which takes hundreds of megabytes where that is
    a document.
    """

    def __init__(self, model: Any) -> None:
        self._model = model

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        # The tokenizer takes no half of a surrogate pair.
        clean = [text.encode("utf-8", "replace").decode() for text in texts]
        vectors: list[list[float]] = self._model.embed(clean, batch_size=1).tolist()
        return vectors


@cache
def _wordllama() -> Embedder:
    """Load the model once: 34 MB."""
    try:
        package: Any = importlib.import_module("wordllama")
        # Without both it looks for its tokenizer on a hub, though the package holds it.
        folder = Path(package.__file__).parent
        return _WordLlama(package.WordLlama.load(cache_dir=folder, disable_download=True))
    except (ImportError, FileNotFoundError) as error:
        raise MissingDependencyError(
            f"The embedder `{WORDLLAMA}` needs its package, whole: `pip install 'langchain-rlfocal[wordllama]'`. "
            f"{type(error).__name__}: {error}"
        ) from error
