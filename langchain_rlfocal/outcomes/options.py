"""Options: what the scores of a multiple-choice question's options stand for.

A row records one score per option, and one answer. What option j is called nobody records: it is learned, per task, from
the rows whose best option is clear. Nothing is learned from the right answers, and nothing of it depends on which members
a pool has, so that the names of the options tell nothing about what a member answered to this query.
"""

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from langchain_rlfocal.outcomes.columns import NUMBERS, Codes, codes_of

_NOTHING = np.array(None, dtype=object)


class OptionFields(TypedDict, total=False):
    """The fields of an `OutcomeGrid` that are about options: all four, or none."""

    option_probs: npt.NDArray[np.float64]
    option_answers: npt.NDArray[np.object_]
    option_ids: npt.NDArray[np.int32]
    option_scores: npt.NDArray[np.float64]


def lay_out_options(
    table: pa.Table,
    codes: Mapping[str, Codes],
    cells: pa.Array,
    *,
    answers: npt.NDArray[np.object_],
    golds: Sequence[str | None],
    scores: npt.NDArray[np.float64],
    tasks: npt.NDArray[np.int64],
) -> OptionFields:
    """Lay out the options of a grid; nothing where no cell has any.

    Args:
        table: The whole table, from which the names of the options are learned.
        codes: The table's texts by column, numbered.
        cells: The row of each cell, Q x M of them; null where there is none.
        answers: The members' answers, shape [Q, M].
        golds: The right answers, Q of them.
        scores: The members' scores, shape [Q, M].
        tasks: The number of each query's task, shape [Q].
    """
    if table["option_probs"].null_count == len(table):
        return {}
    probs = _padded(table["option_probs"].take(cells))
    num_options = probs.shape[1]
    if not num_options:
        return {}
    probs = probs.reshape(*answers.shape, num_options)
    exists = ~np.isnan(probs).all(axis=1)
    names = np.where(exists, learn_names(table, codes)[tasks, :num_options], _NOTHING)
    right = np.array(golds, dtype=object)[:, None]
    can_choose = np.not_equal(names, _NOTHING) & np.not_equal(right, _NOTHING)
    is_same = np.equal(answers[:, :, None], names[:, None, :])
    is_given, giver = is_same.any(axis=1), is_same.argmax(axis=1)
    ids = np.where(is_given, giver, len(answers[0]) + np.arange(num_options))
    worth = np.where(is_given, np.take_along_axis(scores, giver, axis=1), np.equal(names, right))
    return {
        "option_probs": probs,
        "option_answers": names,
        "option_ids": np.where(can_choose, ids, -1).astype(np.int32),
        "option_scores": np.where(can_choose, worth, np.nan),
    }


def learn_names(table: pa.Table, codes: Mapping[str, Codes]) -> npt.NDArray[np.object_]:
    """Learn what each task calls its options: the answer of the rows that score the option best.

    A row speaks for an option if it scores that one above all others and has an answer. A task's options have names where
    the rows of all members agree: no option has two answers, no answer two options, and at least one option has its answer
    from two queries. So letters, numbers and fixed words are found, and a task whose options are other texts in every query
    has none; an option that no row scores best has none either.

    Returns:
        The names, shape [tasks, O], None where there is none.
    """
    probs = _padded(table["option_probs"])
    names = np.full((len(codes["task"][1]), probs.shape[1]), None, dtype=object)
    answer, texts = codes_of(table["answer"])
    known = np.where(np.isnan(probs), -np.inf, probs)
    best = known.max(axis=1, keepdims=True, initial=-np.inf)
    is_best = (known == best) & np.isfinite(best)
    rows = np.flatnonzero((is_best.sum(axis=1) == 1) & (answer >= 0))
    said = np.stack([codes["task"][0], is_best.argmax(axis=1), answer, codes["query_id"][0]])[:, rows]
    said, queries = np.unique(np.unique(said, axis=1)[:3], axis=1, return_counts=True)
    for task in np.unique(said[0]):
        is_here = said[0] == task
        _, options, answers = said[:, is_here]
        is_one_to_one = len(set(options)) == len(set(answers)) == len(options)
        if is_one_to_one and queries[is_here].max() > 1:
            names[task, options] = [texts[code] for code in answers]
    return names


def _padded(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Lay out lists as rows, padded with NaN to the longest, shape [rows, O]."""
    lists = pa.chunked_array(column.chunks, NUMBERS).combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    longest = int(lengths.max(initial=0))
    padded = np.full((len(lengths), longest), np.nan)
    padded[np.arange(longest) < lengths[:, None]] = lists.flatten().to_numpy()
    return padded
