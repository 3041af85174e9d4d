"""Layout: from the rows of a table to the square of a grid."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from langchain_rlfocal.errors import OutcomeError
from langchain_rlfocal.outcomes.columns import NUMBER, Codes, codes_of
from langchain_rlfocal.outcomes.grids import OutcomeGrid
from langchain_rlfocal.outcomes.options import lay_out_options


def lay_out(
    table: pa.Table,
    codes: Mapping[str, Codes],
    members: tuple[str, ...],
    cells: npt.NDArray[np.intp],
    *,
    dropped: int,
    test_ids: str | None,
) -> OutcomeGrid:
    """Make a grid of a checked table.

    Args:
        table: The whole table.
        codes: Its texts by column, numbered: those of `task`, `query_id` and `query`.
        members: The pool, in its order.
        cells: The row of the table that holds each cell, shape [Q, M]; -1 where a member has none, in no query all of them.
        dropped: How many queries were left out.
        test_ids: Which names of queries mark test rows, with wildcards.

    Raises:
        OutcomeError: `test_ids` matches no query.
    """
    is_absent = cells < 0
    flat = pa.array(cells.ravel(), mask=is_absent.ravel())
    rows = cells.max(axis=1)

    def numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
        taken = column.take(flat).cast(NUMBER)
        return np.asarray(pc.fill_null(taken, np.nan).to_numpy(), dtype=np.float64).reshape(cells.shape)

    def texts(name: str) -> list[str]:
        numbered, values = codes[name]
        return [values[code] for code in numbered[rows]]

    answer_codes, values = codes_of(table["answer"].take(flat))
    answer_codes = answer_codes.reshape(cells.shape)
    first = (answer_codes[:, :, None] == answer_codes[:, None, :]).argmax(axis=2)
    # A code of -1 reads the None at the end.
    answers = np.array([*values, None], dtype=object)[answer_codes]
    gold_codes, gold_values = codes_of(table["gold"].take(flat))
    # Members may stand in files of which only one records the right answer: take the first there is.
    gold_codes = gold_codes.reshape(cells.shape)
    gold_codes = gold_codes[np.arange(len(cells)), (gold_codes >= 0).argmax(axis=1)]
    golds = [None if code < 0 else gold_values[code] for code in gold_codes]
    scores = np.where(is_absent, 0.0, numbers(table["reward"]))
    query_ids = texts("query_id")
    return OutcomeGrid(
        members=members,
        tasks=texts("task"),
        query_ids=query_ids,
        queries=texts("query"),
        golds=golds,
        answer_ids=np.where(answer_codes < 0, -1, first).astype(np.int32),
        answers=answers,
        scores=scores,
        cost_usd=numbers(table["cost_usd"]),
        latency_s=numbers(table["latency_s"]),
        prompt_tokens=numbers(table["prompt_tokens"]),
        completion_tokens=numbers(table["completion_tokens"]),
        logprobs=numbers(table["logprob"]),
        response_chars=numbers(pc.utf8_length(table["response"])),
        **lay_out_options(
            table, codes, flat, answers=answers, golds=golds, scores=scores, tasks=codes["task"][0][rows]
        ),
        is_test=None if test_ids is None else _matches(query_ids, test_ids),
        dropped=dropped,
        missing=int(is_absent.any(axis=1).sum()),
    )


def _matches(query_ids: list[str], test_ids: str) -> npt.NDArray[np.bool_]:
    is_test = np.array([fnmatchcase(query_id, test_ids) for query_id in query_ids], dtype=bool)
    if not is_test.any():
        known = ", ".join(query_ids[:10])
        rule = f"`test_ids` must match a query of the grid, got {test_ids!r}. Its query ids begin: {known}."
        raise OutcomeError(rule, column="query_id")
    return is_test
