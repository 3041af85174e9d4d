"""Checks: what the measures take, and nothing else."""

import numpy as np
import numpy.typing as npt

from langchain_rlfocal.errors import InputError

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def wrong_of(correct: Bools) -> Floats:
    """Check `correct` and return 1.0 where a member fails, shape [Q, M].

    Raises:
        InputError: `correct` is not a bool array of shape [Q, M] with at least one member.
    """
    if correct.ndim != 2 or correct.dtype != np.bool_ or not correct.shape[1]:
        raise InputError(
            f"`correct` must be a bool array of shape [Q, M] with a member, got {correct.dtype} of shape "
            f"{correct.shape}. Threshold the scores first, such as `scores >= 0.5`."
        )
    wrong: Floats = (~correct).astype(np.float64)
    return wrong


def wrong_of_some(correct: Bools) -> Floats:
    """Check `correct` as `wrong_of` does, and that there is a query.

    Raises:
        InputError: `correct` is not a bool array of shape [Q, M] with at least one member and one query.
    """
    wrong = wrong_of(correct)
    if not len(wrong):
        raise InputError("`correct` must hold at least one query, got none. A share of no queries has no value.")
    return wrong


def check_answer_ids(answer_ids: npt.NDArray[np.integer], correct: Bools) -> None:
    """Check the answers that belong to `correct`.

    Raises:
        InputError: They are not whole numbers of the shape of `correct`, or one is below -1.
    """
    if answer_ids.shape != correct.shape or not np.issubdtype(answer_ids.dtype, np.integer):
        raise InputError(
            f"`answer_ids` must be whole numbers of the shape of `correct`, {correct.shape}, got {answer_ids.dtype} of "
            f"shape {answer_ids.shape}. Number the answers, such as `OutcomeGrid.answer_ids` does."
        )
    if answer_ids.min(initial=0) < -1:
        raise InputError(
            f"`answer_ids` must be at least -1, which is no answer, got {answer_ids.min()}. Number answers from 0."
        )
