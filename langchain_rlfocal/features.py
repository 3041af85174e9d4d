"""Features: what the policies know of a query before anyone is asked.

A query becomes one vector of three blocks: surface (digits, options, shape of the question; not how long it is), hashed words and
word pairs, and the hashed task label. It is deterministic on every machine, needs no vocabulary, no download and no
model, and reads text only: it never looks at an answer or a label.

It describes what is asked, not how it is written. Nothing in it knows case, blanks, line breaks, single letters, how options
are marked, the marks at the end, or two letters of a word that changed places; what is said around a question that is not
about it (`MANNER`) is left out. `evaluation.rewrites` measures what that is worth.

An embedder can add a fourth block. It is found by its name, which can be written in a command or a configuration:
`"wordllama"` is the static embedding whose weights come with the package of that name (256 dimensions, about a millisecond a
query, no network, no torch); any other name is `package.module:function`, a function without arguments that returns one.
"""

import importlib
import math
import pkgutil
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from langchain_rlfocal.errors import InputError, MissingDependencyError

SURFACE_NAMES = (
    "digit_share",
    "numbers",
    "options",
    "yes_no",
    "code_share",
    "mean_word_length",
    "quoted",
    "comma_share",
)
"""Names of the surface features, each in [0, 1]. A share is that of characters beside those of the words."""

HASHED_WORDS = 512
HASHED_TASKS = 256
FEATURES_DIM = len(SURFACE_NAMES) + HASHED_WORDS + HASHED_TASKS
"""F, the length of a query's feature vector."""

WORDS_SCALE = 0.2
"""Length of the words' block: there are many more of them than of surface features, and each says less."""

MAX_CHARS = 20_000
"""Text beyond this many characters is not read: a long document's head says what kind of question it is."""


MOST_CELLS = 2**25
"""Of more features than so many (a quarter of a GiB) learning makes no second copy: it reads them in blocks of rows."""

_BLOCK_ROWS = 8192

WORDLLAMA = "wordllama"
"""Name of the embedder whose weights come in a package."""


def row_blocks(num_rows: int) -> Iterator[slice]:
    """Divide the rows of a large matrix of features into blocks."""
    return (slice(start, start + _BLOCK_ROWS) for start in range(0, num_rows, _BLOCK_ROWS))


class Embedder(Protocol):
    """Turns texts into vectors; any LangChain `Embeddings` is one."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed N texts, shape [N, E]; the same text gives the same vector."""


MANNER = """
a an the this that these those it its of to for with in on at by as and or if so but from into about before after below above
following i me my we us our you your be am is are do does did have has had could would can will may might should must shall
hello hi hey dear good morning afternoon evening day greetings please pls kindly thanks thank thx many advance sorry very much
really just only also help need want like know let appreciate appreciated grateful glad question questions problem problems task
exercise request one answer answers solve solution respond response reply tell give provide say write print output return show
choose choice select pick option options letter letters correct right final single think thinking step steps reason reasoning
explain explanation without carefully careful slowly concise concisely brief briefly short detailed deep breath take time work
through check sure make here there then first now assistant expert experts helpful assistance homework stuck read look word words
sentence sentences paragraph english nothing else everything everyone important urgent matters lot double quick quickly simple simply
"""
"""Words of greetings, requests and instructions, and those between them. A query's first and last words that are all among
them say how it is put, not what it asks."""

_LETTERS, _NUMBERS = tuple("abcdefghij"), tuple(map(str, range(1, 11)))
OPTION_MARK = re.compile(r"[\s(\[]([a-j1-9]0?)[).:\]](?=\s)")
"""What may mark an option, in text of lower case that begins with a blank; see `option_run`."""

_WORD = re.compile(r"[^\W\d_]{2,32}|\d{1,32}")
_ASCII_WORD = re.compile(r"[a-z]{2,32}|[0-9]{1,32}")
_EITHER = re.compile(r"\b(?:yes\s{1,9}or\s{1,9}no|true\s{1,9}or\s{1,9}false)\b")
_SENTENCE_WITH_VERB = re.compile(r"[.?!:]\s{1,9}(?:is|are|was|were|do|does|did|has|have|(?:can|will)(?! you))\b")
_CODE = b"{}[]<>=;_\\/*+^|&#"


@lru_cache(maxsize=2**14)
def _key(word: str) -> str:
    """Sort a word's letters: then no two of them can change places. Few words are both likely and made of the same letters."""
    return "".join(sorted(word))


_MANNER = frozenset(map(_key, MANNER.split()))


def _subject(words: list[str]) -> list[str]:
    """Drop the first and the last words that are of `MANNER`; all stay where there are no others."""
    end = len(words)
    while end and words[end - 1] in _MANNER:
        end -= 1
    start = 0
    while start < end and words[start] in _MANNER:
        start += 1
    return words[start:end] if end else words


def option_run(marks: Iterable[re.Match[str]]) -> list[re.Match[str]]:
    """Find the marks of a query's options: the longest run that begins with A, or else with 1, and misses none.

    Args:
        marks: All matches of `OPTION_MARK`, in their order.

    Returns:
        The last of the longest runs; empty where none has two marks.
    """
    marks = [*marks]
    for order in (_LETTERS, _NUMBERS):
        best: list[re.Match[str]] = []
        run: list[re.Match[str]] = []
        for mark in marks:
            if mark[1] in order:
                if len(run) < len(order) and mark[1] == order[len(run)]:
                    run.append(mark)
                else:
                    run = [mark] if mark[1] == order[0] else []
                best = [*run] if len(run) >= len(best) else best
        if len(best) > 1:
            return best
    return []


def _asks_yes_or_no(lower: str) -> bool:
    if _SENTENCE_WITH_VERB.search(f". {lower}"):
        return True
    return " or " in lower and _EITHER.search(lower) is not None


def _surface(lower: str, words: Sequence[str], *, num_options: int) -> list[float]:
    numbers = [*filter(str.isdigit, words)]
    length, ascii_text = len("".join(words)), lower.encode("ascii", "replace")
    num_code = len(ascii_text) - len(ascii_text.translate(None, _CODE))
    return [
        len("".join(numbers)) / max(length, 1),
        min(len(numbers) / 10.0, 1.0),
        num_options / 10.0,
        float(_asks_yes_or_no(lower)),
        num_code / max(length + num_code, 1),
        min(length / max(len(words), 1) / 12.0, 1.0),
        float('"' in lower or "“" in lower),
        min(lower.count(",") / max(length, 1), 1.0),
    ]


def _hashed(tokens: Collection[bytes], length: int) -> npt.NDArray[np.float64]:
    """Hash tokens into a block of length 1: the low bits of a token's CRC-32 choose the index, the top bit the sign."""
    codes = np.fromiter(map(zlib.crc32, tokens), dtype=np.int64, count=len(tokens))
    block = np.bincount(codes % length, weights=1.0 - 2.0 * (codes < 2**31), minlength=length)
    norm = math.sqrt(block @ block)
    return np.asarray(block / norm if norm > 0 else block, dtype=np.float64)


@lru_cache(maxsize=1024)
def task_features(task: str | None) -> npt.NDArray[np.float64]:
    """Describe a task label, shape [HASHED_TASKS], read-only; zeros for None.

    Each of its prefixes counts, so that a new subtask resembles its siblings, and each counts twice, under two hashes, so
    that two labels rarely share both.
    """
    parts = _encoded(task).split(b"/") if task else []
    prefixes = [b"/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    features = _hashed([salt + prefix for prefix in prefixes for salt in (b"", b"\0")], HASHED_TASKS)
    features.flags.writeable = False
    return features


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def query_features(text: str, task: str | None = None) -> npt.NDArray[np.float64]:
    """Describe one query.

    Args:
        text: The query's text; any string, the empty one included.
        task: Task label such as `"mmlu_pro/law"`, or None; see `task_features`.

    Returns:
        Vector of shape [F]: surface features, word hashes scaled to length `WORDS_SCALE`, task hashes scaled to length 1.
    """
    lower = text[:MAX_CHARS].lower()
    marks: list[re.Match[str]] = []

    def without(mark: re.Match[str]) -> str:
        marks.append(mark)
        return " "

    unmarked = OPTION_MARK.sub(without, f" {lower}")
    num_options = len(option_run(marks))
    if num_options:
        lower = unmarked
    words = _subject([*map(_key, (_ASCII_WORD if lower.isascii() else _WORD).findall(lower))])
    encoded = _encoded(" ".join(words)).split()
    hashed = _hashed({*encoded, *map(b" ".join, pairwise(encoded))}, HASHED_WORDS)
    features = np.empty(FEATURES_DIM)
    features[: len(SURFACE_NAMES)] = _surface(lower, words, num_options=num_options)
    np.multiply(hashed, WORDS_SCALE, out=features[len(SURFACE_NAMES) : -HASHED_TASKS])
    features[-HASHED_TASKS:] = task_features(task)
    return features


_remembered = lru_cache(maxsize=8)(query_features)


def features_of(
    texts: Sequence[str], tasks: Sequence[str | None], *, embedder: Embedder | None = None
) -> npt.NDArray[np.float64]:
    """Describe Q queries: `query_features` of each, and their embeddings where there is an embedder.

    Args:
        texts: The queries' texts, Q of them.
        tasks: Their task labels.
        embedder: Gives each text E more features, scaled to length `WORDS_SCALE`.

    Returns:
        Features, shape [Q, F] or [Q, F + E].

    Raises:
        InputError: The embedder does not give one finite vector per text.
    """
    if not texts:
        more = 0 if embedder is None else len(embedder.embed_documents([""])[0])
        return np.zeros((0, FEATURES_DIM + more))
    # Where one query is described, policies built on each other describe the same one in turn.
    one = _remembered if len(texts) == 1 else query_features
    features = np.empty((len(texts), FEATURES_DIM))
    for row, (text, task) in enumerate(zip(texts, tasks, strict=True)):
        features[row] = one(text, task)
    if embedder is None:
        return features
    embedded = embedder.embed_documents([text[:MAX_CHARS] for text in texts])
    try:
        vectors = np.asarray(embedded, dtype=np.float64)
    except (TypeError, ValueError):  # of several lengths, or no numbers
        vectors = np.zeros(0)
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
        raise InputError(
            f"The embedder must give one finite vector of one length per text, got shape {vectors.shape} for {len(texts)} "
            "texts. Pass another one."
        )
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.concatenate([features, WORDS_SCALE * vectors / np.where(norms > 0, norms, 1.0)], axis=1)


class NamedEmbedder:
    """An embedder and the name that it can be loaded by; it is copied and pickled by that name.

    Attributes:
        name: The name.
    """

    def __init__(self, name: str, embedder: Embedder) -> None:
        self.name, self._embedder = name, embedder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed N texts, shape [N, E]."""
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
        made = pkgutil.resolve_name(name)()
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
    """wordllama's model, which embeds each text by itself: a batch is padded to its longest text."""

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
