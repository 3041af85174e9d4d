"""Features: what the policies know of a query before anyone is asked.

A query becomes one vector of three blocks: surface (lengths, digits, options, shape of the question), hashed words and
word pairs, and the hashed task label. It is deterministic on every machine, needs no vocabulary, no download and no
model, and reads text only: it never looks at an answer or a label.
"""

import re
import zlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

SURFACE_NAMES = (
    "length",
    "words",
    "digit_share",
    "numbers",
    "options",
    "yes_no",
    "question_mark",
    "code_share",
    "upper_share",
    "lines",
    "mean_word_length",
    "quoted",
)
"""Names of the surface features, each in [0, 1]."""

HASHED_WORDS = 256
HASHED_TASKS = 64
FEATURES_DIM = len(SURFACE_NAMES) + HASHED_WORDS + HASHED_TASKS
"""F, the length of a query's feature vector."""

MAX_CHARS = 20_000
"""Text beyond this many characters is not read: a long document's head says what kind of question it is."""

_WORD = re.compile(r"[^\W\d_]+|\d+")
_OPTION = re.compile(r"(?:^|[\s(])\(?[A-J][).]\s")
_YES_NO = re.compile(
    r"\b(?:yes or no|true or false)\b|(?:^|[.?!\n]\s*)(?:is|are|was|were|do|does|did|can|has|have|will)\b",
    re.IGNORECASE,
)
_CODE = frozenset("{}[]<>=;_\\/*+^|&#")


def _surface(text: str, words: Sequence[str]) -> list[float]:
    chars = max(len(text), 1)
    digits = sum(c.isdigit() for c in text)
    return [
        min(np.log1p(len(text)) / 10.0, 1.0),
        min(np.log1p(len(words)) / 8.0, 1.0),
        digits / chars,
        min(sum(w.isdigit() for w in words) / 10.0, 1.0),
        min(len(_OPTION.findall(text)) / 10.0, 1.0),
        float(_YES_NO.search(text) is not None),
        float("?" in text),
        sum(c in _CODE for c in text) / chars,
        sum(c.isupper() for c in text) / chars,
        min(np.log1p(text.count("\n")) / 5.0, 1.0),
        min(sum(map(len, words)) / max(len(words), 1) / 12.0, 1.0),
        float('"' in text or "“" in text),
    ]


def _add_hashed(block: npt.NDArray[np.float64], token: str) -> None:
    """Add a token to a block: the low bits of its CRC-32 choose the place, the top bit the sign."""
    code = zlib.crc32(token.encode("utf-8", "surrogatepass"))
    block[code % len(block)] += 1.0 if code >> 31 else -1.0


def query_features(text: str, task: str | None = None) -> npt.NDArray[np.float64]:
    """Describe one query.

    Args:
        text: The query's text; any string, the empty one included.
        task: Task label such as `"mmlu_pro/law"`; each of its prefixes counts too, so that a new subtask resembles its
            siblings.

    Returns:
        Vector of shape [F]: surface features, word hashes scaled to length 1, task hashes scaled to length 1.
    """
    text = text[:MAX_CHARS]
    words = _WORD.findall(text.lower())
    hashed, task_hashed = np.zeros(HASHED_WORDS), np.zeros(HASHED_TASKS)
    for token in {*words, *map(" ".join, pairwise(words))}:
        _add_hashed(hashed, token)
    if task:
        parts = task.split("/")
        for depth in range(1, len(parts) + 1):
            _add_hashed(task_hashed, "/".join(parts[:depth]))
    for block in (hashed, task_hashed):
        norm = np.linalg.norm(block)
        if norm > 0:
            np.divide(block, norm, out=block)
    return np.concatenate([_surface(text, words), hashed, task_hashed])


def features_of(texts: Sequence[str], tasks: Sequence[str | None]) -> npt.NDArray[np.float64]:
    """Describe Q queries: `query_features` of each, stacked to shape [Q, F]."""
    if not texts:
        return np.zeros((0, FEATURES_DIM))
    return np.stack([query_features(text, task) for text, task in zip(texts, tasks, strict=True)])
