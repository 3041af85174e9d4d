"""Made outcomes, whose truth is known. Texts say nothing about which member will be right."""

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING

from langchain_rlfocal.errors import InputError

if TYPE_CHECKING:
    from langchain_rlfocal.outcomes import OutcomeTable


def make_outcomes(
    accuracies: Mapping[str, Mapping[str, float]],
    *,
    num_queries: int = 100,
    num_options: int = 4,
    costs_usd: Mapping[str, float] | None = None,
    seed: int = 0,
) -> "OutcomeTable":
    """Make outcomes of multiple-choice questions whose members are right exactly as often as told.

    Which questions a member gets right is drawn for each member by itself, so members' errors are independent; a wrong
    member picks one of the wrong options at random.

    Args:
        accuracies: By task, each member's share of right answers, in [0, 1]; of n queries it gets round(n share) right.
        num_queries: Queries of each task.
        num_options: Options of each query, at least 2.
        costs_usd: Dollars that a call of a member costs; unknown for members not named.
        seed: Seed of the draws. Same arguments, same table.

    Raises:
        InputError: A number is outside its range.
    """
    from langchain_rlfocal.outcomes import Outcome, OutcomeTable  # noqa: PLC0415  # they load pyarrow, test doubles do not

    if num_queries < 1 or not 2 <= num_options <= 26:
        raise InputError(
            f"`num_queries` must be at least 1 and `num_options` in [2, 26], got {num_queries} and {num_options}."
        )
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:num_options]
    generator = random.Random(seed)  # noqa: S311  # test data, no secrets
    outcomes = []
    for task, shares in accuracies.items():
        golds = generator.choices(letters, k=num_queries)
        for member, share in shares.items():
            if not 0 <= share <= 1:
                raise InputError(f"The accuracy of `{member}` in `{task}` must be in [0, 1], got {share}.")
            right = set(generator.sample(range(num_queries), round(num_queries * share)))
            for index, gold in enumerate(golds):
                answer = gold if index in right else generator.choice(letters.replace(gold, ""))
                query = f"Question {index} about {task}: which of {', '.join(letters)} is right?"
                outcomes.append(
                    Outcome(
                        task=task,
                        query_id=str(index),
                        query=query,
                        model=member,
                        response=f"The answer is {answer}.",
                        answer=answer,
                        gold=gold,
                        reward=float(answer == gold),
                        prompt_tokens=len(query.split()),
                        completion_tokens=4,
                        cost_usd=(costs_usd or {}).get(member),
                        latency_s=1.0,
                    )
                )
    return OutcomeTable.from_outcomes(outcomes)
