"""Looks: how the options of a multiple-choice question are written, as far as it tells which of them is right.

Whoever writes such a question tends to word the right option longer than the wrong ones, and to surround the right number by
wrong ones. So an option's length and the place of its number among the others are evidence, however weak, before anyone is
asked. What it is worth is learned from outcomes (`policies.evidence`); nothing here reads an answer.

Source: Millman, Bishop and Ebel, 1965, "An analysis of test-wiseness".
"""

import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

from langchain_rlfocal.features import MAX_CHARS, OPTION_MARK, option_run
from langchain_rlfocal.states import Floats, Texts

LOOK_NAMES = ("length", "longest", "central", "extreme")
"""What is seen of a candidate; all 0 for a label that names no option of the query.

- `length`: logarithm of the option's characters, blanks and marks left out, minus the mean over the options.
- `longest`: 1 for the longest option, shared by several as long.
- `central`: 1 - 4r² minus the mean over the options, with r in [-½, ½] the rank of the option's number, ½ the highest.
- `extreme`: 1 for the highest and the lowest number, else 0, minus the mean over the options.

The last two are 0 unless all options have a number and there are three different ones.
"""

_WORD = re.compile(r"\w{1,64}")
_NUMBER = re.compile(r"(?:(?<!\w)[-−]\s?)?(?:\d[\d,]{0,29}(?:\.\d{1,30})?|\.\d{1,30})")


def options_in(query: str) -> dict[str, str]:
    """Find the options that a query lists; see `features.option_run`.

    Returns:
        Text of each option by its label, in capitals; in lower case. Empty where there are not two.
    """
    text = f" {query[:MAX_CHARS].lower()}"
    run = option_run(OPTION_MARK.finditer(text))
    if not run:
        return {}
    texts = [text[one.end() : two.start()].strip() for one, two in pairwise(run)]
    last = text[run[-1].end() :].strip()
    # What follows the last option begins on a line of its own, unless options take several lines.
    texts.append(last if any("\n" in one for one in texts) else last.partition("\n")[0])
    return {mark[1].upper(): one for mark, one in zip(run, texts, strict=True)}


def _numbers(texts: Sequence[str]) -> list[float]:
    """Read the first number of each text; none where some text has no number."""
    found = []
    for text in texts:
        match = _NUMBER.search(text)
        if match is None:
            return []
        found.append(float("".join(match[0].replace(",", "").replace("−", "-").split())))
    return found


@lru_cache(maxsize=1024)
def looks_of_options(query: str) -> Mapping[str, tuple[float, ...]]:
    """Describe each option of a query by the names of `LOOK_NAMES`."""
    options = options_in(query)
    if not options:
        return {}
    # Plain Python: arrays of ten numbers cost more than they save.
    num, lengths = len(options), [sum(map(len, _WORD.findall(text))) for text in options.values()]
    logs, most = [*map(math.log1p, lengths)], max(lengths)
    mean, longest = sum(logs) / num, 1 / lengths.count(most)
    looks = [(log - mean, longest if length == most else 0.0) for log, length in zip(logs, lengths, strict=True)]
    numbers = [(0.0, 0.0)] * num
    values = _numbers([*options.values()])
    if len(set(values)) > 2:
        order = sorted(values)
        ranks = [(order.index(value) + (order.count(value) - 1) / 2) / (num - 1) - 0.5 for value in values]
        central, extreme = [1 - 4 * rank**2 for rank in ranks], [value in {order[0], order[-1]} for value in values]
        shift = sum(central) / num, sum(extreme) / num
        numbers = [(one - shift[0], two - shift[1]) for one, two in zip(central, extreme, strict=True)]
    return {label: (*look, *number) for label, look, number in zip(options, looks, numbers, strict=True)}


def looks_of(queries: Sequence[str], labels: Texts) -> Floats | None:
    """Describe candidates by their labels.

    Args:
        queries: The queries' texts, Q of them.
        labels: The answer that each candidate stands for, None where there is none, shape [Q, K].

    Returns:
        Shape [Q, K, L]; None where no query lists options.
    """
    looks = None
    for row, query in enumerate(queries):
        if options := looks_of_options(query):
            if looks is None:
                looks = np.zeros((*labels.shape, len(LOOK_NAMES)))
            for k, label in enumerate(labels[row].tolist()):
                if label in options:
                    looks[row, k] = options[label]
    return looks
