"""What a whole collection will take, told before anybody is asked."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from langchain_rlfocal.collection.config import CollectConfig, needs_judge, scorers_of
from langchain_rlfocal.collection.exporting import is_failure
from langchain_rlfocal.collection.pricing import Basis, Estimator
from langchain_rlfocal.log import Attempt, Cell, OutcomeLog
from langchain_rlfocal.outcomes import Outcome, Question
from langchain_rlfocal.pool import ModelPool, PoolMember


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberPrice:
    """What asking one member will take, or having a judge score what they say.

    Attributes:
        name: Who it is.
        calls: Calls to make.
        on_record: Answers on record already.
        prompt_tokens: Tokens of all prompts, None of a judge.
        output_tokens: Tokens of one answer, None of a judge.
        basis: What these were estimated by.
        usd: Dollars of all calls, None where a price is unknown.
    """

    name: str
    calls: int
    on_record: int = 0
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    basis: Basis | None = None
    usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPrice:
    """What a collection will take.

    Attributes:
        members: Of each member, in the pool's order.
        judge: Of the judge, None without one.
        usd: Dollars of those whose prices are known.
        unpriced: Who has unknown prices, and calls to make.
    """

    members: tuple[MemberPrice, ...]
    judge: MemberPrice | None = None
    usd: float = 0.0
    unpriced: tuple[str, ...] = field(default=())

    @property
    def calls(self) -> int:
        """Calls to members."""
        return sum(member.calls for member in self.members)


def price_collection(
    pool: ModelPool,
    questions: Sequence[Question],
    config: CollectConfig,
    *,
    log: OutcomeLog | None = None,
    rows: Iterable[Outcome] = (),
) -> JobPrice:
    """Estimate what a collection will take; nobody is asked, and nothing is written.

    Args:
        pool: Whom to ask.
        questions: What to ask.
        config: How to collect.
        log: What is on record, None where there is no log yet.
        rows: What a table holds that the log may not hold yet.
    """
    recorded: dict[Cell, Attempt] = {}
    for row in rows:
        failure = "failed" if is_failure(row) else None
        recorded[row.task, row.query_id, row.model, 0] = Attempt(outcome=row, failure=failure)
    for attempt in () if log is None else log.attempts():
        recorded[attempt.cell] = attempt
    missing: dict[str, list[Question]] = {name: [] for name in pool.names}
    on_record = dict.fromkeys(pool.names, 0)
    for name in pool.names:
        for question in questions:
            for sample in range(config.samples):
                before = recorded.get((question.task, question.query_id, name, sample))
                if before is None or (before.failure is not None and config.retry_failed):
                    missing[name].append(question)
                else:
                    on_record[name] += before.failure is None
    estimator = Estimator(recorded.values(), output_tokens=config.output_tokens)
    prices = []
    for member in pool:
        tokens, basis = estimator.output_tokens(member)
        asked = missing[member.name]
        prices.append(
            MemberPrice(
                name=member.name,
                calls=len(asked),
                on_record=on_record[member.name],
                prompt_tokens=sum(map(estimator.prompt_tokens, asked)),
                output_tokens=tokens,
                basis=basis,
                usd=_total([estimator.call_usd(member, question) for question in asked], config.unpriced_usd),
            )
        )
    of_judge = None if config.judge is None else _price_of_judge(pool, missing, estimator, config, config.judge)
    everyone = [*prices, *([of_judge] if of_judge else [])]
    return JobPrice(
        members=tuple(prices),
        judge=of_judge,
        usd=sum(price.usd for price in everyone if price.usd is not None),
        unpriced=tuple(price.name for price in everyone if price.usd is None and price.calls),
    )


def _price_of_judge(
    pool: ModelPool,
    missing: Mapping[str, Sequence[Question]],
    estimator: Estimator,
    config: CollectConfig,
    judge: PoolMember,
) -> MemberPrice | None:
    """Estimate what scoring takes; None where no scorer asks a model."""
    scorers = scorers_of({question for asked in missing.values() for question in asked}, config)
    verdicts = [
        estimator.judge_usd(judge, scorer.name, question, member)
        for member in pool
        for question in missing[member.name]
        if needs_judge(scorer := scorers[question.scorer or config.scorer])
    ]
    if not verdicts:
        return None
    return MemberPrice(name=judge.name, calls=len(verdicts), usd=_total(verdicts, config.unpriced_usd))


def _total(calls: Sequence[float | None], unpriced_usd: float | None) -> float | None:
    known = [unpriced_usd if usd is None else usd for usd in calls]
    return sum(usd for usd in known if usd is not None) if None not in known else None
