"""The command that scores answers on record: `score`."""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from langchain_rlfocal.cli.options import INTERRUPTED, Json, end_with, open_pool, see_working_folder, show_result
from langchain_rlfocal.cli.views import interval, progress_bar, usd
from langchain_rlfocal.errors import InputError, OutcomeError
from langchain_rlfocal.redaction import printable

if TYPE_CHECKING:
    from langchain_rlfocal.outcomes import Outcome, Question
    from langchain_rlfocal.pool import PoolMember
    from langchain_rlfocal.scoring import Agreement, Changes, Reply, Score, Scorer

_AT_ONCE = 256
"""Scores that go into a log together: what a killed run loses at most."""


_MAX_NAMES = 5


def score(
    source: Annotated[str, typer.Argument(help="An outcome log (a path or a URL), or a table of outcomes.")],
    *,
    questions: Annotated[
        Path | None, typer.Option(help="Questions with the references that count now; others stay as they are.")
    ] = None,
    scorer: Annotated[
        str | None, typer.Option(help="What scores: a name, or package.module:function; default: each question's own.")
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(help="The chat model that judges: provider:model, or with `--pool` the name of a member."),
    ] = None,
    pool: Annotated[str | None, typer.Option(help="Pool whose member judges, with its prices.")] = None,
    rubric: Annotated[str | None, typer.Option(help="By what it judges; default: right or wrong.")] = None,
    out: Annotated[Path | None, typer.Option(help="Table to write, where a table is scored.")] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Verdicts of people, to say how well the scores agree: task, query_id, model, label."),
    ] = None,
    max_usd: Annotated[
        float | None, typer.Option(min=0, help="Begin no question whose scoring could pass this.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Questions that are scored at the same time.")] = 8,
    as_json: Json = False,
) -> None:
    """Score again what is on record, by corrected references or another scorer, without asking for an answer again.

    A log gets the scores beside those that it has; a table is written anew. What cannot be scored keeps the score that it has;
    without one it is unscored, not wrong. The exit code is 1 where nothing could be scored.

    Scorers: auto, json_subset, tool_calls, tool_calls_in_order, contains, regex, unit_tests, judge, pairwise, a kind of answer such as number or math, or package.module:function.

    Example: rlfocal score o.jsonl --questions fixed.csv --out new.jsonl
    """
    from langchain_rlfocal.outcomes import read_questions
    from langchain_rlfocal.outcomes.files import check_writable

    is_log = _is_log(source)
    if is_log and out is not None:
        raise InputError(
            "`--out` is for a table; a log keeps its scores itself. Leave it out, or use `rlfocal log export`."
        )
    if not is_log and out is None:
        raise InputError(
            "`--out` must name the table to write, such as --out scored.jsonl. The old one stays as it is."
        )
    if out is not None:
        check_writable(out)
    given = None if questions is None else {(one.task, one.query_id): one for one in read_questions(questions)}
    verdicts = None if labels is None else _read_labels(labels)
    with contextlib.ExitStack() as stack:
        member = _open_judge(judge, pool, stack)
        job = _Job(given, scorer, member, rubric)
        if is_log:
            facts = _score_log(source, job, verdicts, max_usd=max_usd, concurrency=concurrency)
        else:
            assert out is not None
            facts = _score_table(source, out, job, verdicts, max_usd=max_usd, concurrency=concurrency)
    show_result(facts, _views(facts), as_json=as_json)
    if facts["unscored"] and not facts["scored"]:
        end_with("Nothing could be scored: the reasons are above. What was on record stays.", code=1)


# ---- what is scored


class _Job:
    """Which questions count, and what scores each; every scorer is opened before anything is scored."""

    def __init__(
        self,
        given: "Mapping[tuple[str, str], Question] | None",
        scorer: str | None,
        judge: "PoolMember | None",
        rubric: str | None,
    ) -> None:
        self.given, self._scorer, self._judge, self._rubric = given, scorer, judge, rubric
        self._opened: dict[str | None, Scorer] = {}
        self.elsewhere = self.untouched = 0
        self._found: set[tuple[str, str]] = set()

    def scorer_of(self, question: "Question") -> "Scorer":
        """Return what scores a question."""
        from langchain_rlfocal.scoring import open_scorer

        spec = self._scorer or question.scorer
        if spec not in self._opened:
            see_working_folder()  # for scorers of the user's own
            try:
                self._opened[spec] = open_scorer(spec, judge=self._judge, rubric=self._rubric)
            except InputError as error:
                if self._scorer is not None:
                    raise
                rule = f"{error} It is the scorer of {question.task}/{question.query_id}; `--scorer NAME` names one for all."
                raise InputError(rule) from None
        return self._opened[spec]

    def question_of(self, own: "Question", *, file: str, row: int | None = None) -> "Question | None":
        """Return the question that counts for one on record; None where those given leave it out."""
        from langchain_rlfocal.scoring import base_id

        if self.given is None:
            return own
        key = own.task, base_id(own.query_id, self.given, own.task)
        found = self.given.get(key)
        if found is None:
            return None
        self._found.add(key)
        if found.query != own.query:
            rule = (
                f"{own.task}/{own.query_id} must ask what the questions' file asks, {found.query!r:.80}, got {own.query!r:.80}. "
                "Give the new question another id, and collect its answers."
            )
            raise OutcomeError(rule, file=file, row=row, column="query")
        return found

    @property
    def unanswered(self) -> list[str]:
        """Questions given that nothing on record answers, as task/query_id."""
        return ["/".join(key) for key in self.given or () if key not in self._found]


def _is_log(source: str) -> bool:
    if "://" in source:
        return True
    path = Path(source)
    if path.is_file():
        with path.open("rb") as opened:
            return opened.read(16) == b"SQLite format 3\0"
    return path.suffix.lower() in {".db", ".sqlite", ".sqlite3"}


def _open_judge(judge: str | None, pool: str | None, stack: contextlib.ExitStack) -> "PoolMember | None":
    from langchain_rlfocal.pool import ModelPool

    if judge is None:
        if pool is not None:
            raise InputError("`--pool` is where the judge comes from. Name it with `--judge NAME`.")
        return None
    if pool is not None:
        return stack.enter_context(open_pool(pool, []))[judge]
    if ":" not in judge:
        raise InputError(
            f"`--judge` must be provider:model, got {judge!r}. Or name the pool that it is a member of: --pool."
        )
    return ModelPool.from_models({"judge": judge})["judge"]


def _read_labels(path: Path) -> dict[tuple[str, str, str], float]:
    """Read what people said of answers."""
    from langchain_rlfocal.outcomes import DEFAULT_TASK
    from langchain_rlfocal.outcomes.files import NUMBER, TEXT, Column, read_table, rows_of

    columns = (
        Column("task", TEXT),
        Column("query_id", TEXT, is_required=True, is_nullable=False, is_id=True),
        Column("model", TEXT, is_required=True, is_nullable=False),
        Column("label", NUMBER, is_required=True, takes_truth=True, minimum=0.0, maximum=1.0),
    )
    labels: dict[tuple[str, str, str], float] = {}
    for number, row in enumerate(rows_of(read_table(path, columns)), start=1):
        key = (row["task"] or DEFAULT_TASK, row["query_id"], row["model"])
        if key in labels:
            raise OutcomeError(
                "labels an answer that an earlier row labels. Delete one of the two.", file=str(path), row=number
            )
        if row["label"] is not None:
            labels[key] = row["label"]
    return labels


def _reply_of(outcome: "Outcome") -> "Reply":
    """Return what is on record of an answer; the answer alone where the response was not kept."""
    import json

    from langchain_rlfocal.scoring import Reply

    calls = outcome.extras.get("tool_calls") or ()
    if isinstance(calls, str):
        try:
            calls = json.loads(calls)
        except ValueError:
            calls = ()
    is_calls = isinstance(calls, list | tuple) and all(isinstance(call, Mapping) for call in calls)
    text = outcome.answer if outcome.response is None else outcome.response
    return Reply(text=text, tool_calls=tuple(calls) if is_calls else ())


def _check_labels(verdicts: Mapping[Any, float] | None, keys: Iterable[tuple[str, str, str]]) -> None:
    """Refuse labels of other answers before anything is paid for."""
    if verdicts is not None and not verdicts.keys() & set(keys):
        raise InputError(
            f"`--labels` holds {len(verdicts)} verdicts, none of an answer that is scored. Check its task, query_id and model."
        )


# ---- scoring a table, and a log


def _score_table(
    source: str, out: Path, job: _Job, verdicts: Mapping[Any, float] | None, *, max_usd: float | None, concurrency: int
) -> dict[str, Any]:
    from langchain_rlfocal.outcomes import OutcomeTable, question_of
    from langchain_rlfocal.scoring import Asked

    outcomes = [*OutcomeTable.read(source)]
    groups: dict[tuple[str, str], list[int]] = {}
    for row, outcome in enumerate(outcomes):
        groups.setdefault((outcome.task, outcome.query_id), []).append(row)
    asked, places = [], []
    for rows in groups.values():
        first = outcomes[rows[0]]
        gold = next((outcomes[row].gold for row in rows if outcomes[row].gold is not None), None)
        own = replace(question_of(first), gold=gold)
        question = job.question_of(own, file=source, row=rows[0] + 1)
        replies = {row: _reply_of(outcomes[row]) for row in rows}
        scored = [row for row in rows if not replies[row].is_nothing]
        job.untouched += len(rows) - len(scored)
        if question is None:
            job.elsewhere += len(scored)
            continue
        if scored:
            rewards = [outcomes[row].reward for row in scored]
            asked.append(Asked(question, job.scorer_of(question), [replies[row] for row in scored], rewards))
            places.append(scored)
        for row in rows:
            if row not in scored or outcomes[row].reward is None:  # else the gold stays that the reward was made by
                outcomes[row] = replace(outcomes[row], gold=question.gold)
    scored_rows = (outcomes[row] for rows in places for row in rows)
    _check_labels(verdicts, ((one.task, one.query_id, one.model) for one in scored_rows))
    scores, changes = _run(asked, max_usd=max_usd, concurrency=concurrency)
    seen: list[tuple[float, float]] = []
    for group, rows, made in zip(asked, places, scores, strict=True):
        for row, one in zip(rows, made, strict=True):
            if one is None or one.value is None:
                continue
            outcome = outcomes[row] = replace(outcomes[row], gold=group.question.gold, reward=one.value)
            label = None if verdicts is None else verdicts.get((outcome.task, outcome.query_id, outcome.model))
            if label is not None:
                seen.append((one.value, label))
    table = OutcomeTable.from_outcomes(outcomes)
    table.write(out)
    return _facts(job, changes, seen, verdicts, {"rows": len(outcomes), "out": str(out)})


def _score_log(
    place: str, job: _Job, verdicts: Mapping[Any, float] | None, *, max_usd: float | None, concurrency: int
) -> dict[str, Any]:
    from langchain_rlfocal.log import OutcomeLog, ScoreRecord
    from langchain_rlfocal.log.places import Place
    from langchain_rlfocal.outcomes import Question
    from langchain_rlfocal.scoring import Asked, Reply

    where = Place.of(place)
    if where.path is not None and not where.path.is_file():
        raise InputError(f"The outcome log {where.name} must exist. Check the path.")
    log: OutcomeLog = OutcomeLog(place)
    try:
        known = log.questions()
        run = f"score-{uuid4().hex[:12]}"
        groups: dict[tuple[str, str, int], list[Any]] = {}
        num_rows = 0
        for attempt in log.attempts():
            num_rows += 1
            if attempt.failure is not None or attempt.scrubbed:
                job.untouched += 1
                continue
            groups.setdefault((attempt.outcome.task, attempt.outcome.query_id, attempt.sample), []).append(attempt)
        asked, scored = [], []
        for (task, query_id, _), attempts in groups.items():
            first = attempts[0].outcome
            own = known.get((task, query_id)) or Question(
                task=task, query_id=query_id, query=first.query, gold=first.gold
            )
            question = job.question_of(own, file=where.name)
            if question is None:
                job.elsewhere += len(attempts)
                continue
            replies = [
                Reply(
                    text=one.outcome.response if one.outcome.response is not None else one.outcome.answer,
                    tool_calls=one.tool_calls,
                )
                for one in attempts
            ]
            asked.append(Asked(question, job.scorer_of(question), replies, [one.outcome.reward for one in attempts]))
            scored.append(attempts)
        _check_labels(verdicts, (one.cell[:3] for group in scored for one in group if not one.sample))
        if job.given is not None:
            log.add_questions([one.question for one in asked])
        waiting: list[ScoreRecord] = []
        seen: list[tuple[float, float]] = []

        def keep(at: int, made: "Sequence[Score]") -> None:
            for attempt, one in zip(scored[at], made, strict=True):
                record = ScoreRecord(
                    cell=attempt.cell,
                    reward=one.value,
                    scorer=asked[at].scorer.name,
                    gold=asked[at].question.gold,
                    reason=one.reason,
                    usd=one.cost_usd,
                )
                if one.value is None and attempt.outcome.reward is not None:
                    if one.cost_usd == 0:
                        continue
                    # What it took is kept beside the score that stands.
                    record = replace(
                        record,
                        reward=attempt.outcome.reward,
                        scorer=attempt.scorer or "on record",
                        gold=attempt.outcome.gold,
                    )
                waiting.append(record)
                label = None if verdicts is None or attempt.sample else verdicts.get(attempt.cell[:3])
                if label is not None and one.value is not None:
                    seen.append((one.value, label))
            if len(waiting) >= _AT_ONCE:
                log.add_scores(waiting, run=run)
                waiting.clear()

        try:
            _, changes = _run(asked, max_usd=max_usd, concurrency=concurrency, on_scored=keep)
        finally:
            if waiting:
                log.add_scores(waiting, run=run)
        return _facts(job, changes, seen, verdicts, {"rows": num_rows, "log": where.name})
    finally:
        log.close()


def _run(asked: Sequence[Any], *, on_scored: Any = None, **limits: Any) -> tuple[Any, "Changes"]:
    """Score with a progress bar."""
    from langchain_rlfocal.scoring import arescore

    with progress_bar() as progress:
        bar = progress.add_task("Scoring", total=len(asked))

        def show(place: int, scores: "Sequence[Score]") -> None:
            progress.advance(bar)
            if on_scored is not None:
                on_scored(place, scores)

        try:
            return asyncio.run(arescore(asked, on_scored=show, **limits))
        except KeyboardInterrupt:
            progress.stop()
            kept = "What was scored is in the log." if on_scored is not None else "Nothing was written."
            end_with(f"Interrupted. {kept}", code=INTERRUPTED)


# ---- what is said


def _facts(
    job: _Job, changes: "Changes", seen: Sequence[tuple[float, float]], verdicts: Any, where: Mapping[str, Any]
) -> dict[str, Any]:
    from langchain_rlfocal.scoring import Agreement

    facts: dict[str, Any] = {
        **where,
        "scored": changes.scored,
        "rewards": {"up": changes.up, "down": changes.down, "new": changes.new},
        "unscored": dict(changes.unscored.most_common()),
        "kept": changes.kept,
        "left_for_want_of_money": changes.left,
        "not_in_questions": job.elsewhere,
        "questions_without_answers": job.unanswered,
        "nothing_on_record": job.untouched,
        "usd": changes.usd,
        "unpriced": changes.unpriced,
        "agreement": None,
    }
    if verdicts is not None and seen:
        facts["agreement"] = _agreement_facts(Agreement.of(*map(list, zip(*seen, strict=True))))
    return facts


def _agreement_facts(agreement: "Agreement") -> dict[str, Any]:
    return {
        "n": agreement.n,
        "accuracy": agreement.accuracy,
        "accuracy_interval": agreement.accuracy_interval,
        "kappa": agreement.kappa,
        "kappa_interval": agreement.kappa_interval,
        "both_right": agreement.both_right,
        "both_wrong": agreement.both_wrong,
        "too_kind": agreement.too_kind,
        "too_harsh": agreement.too_harsh,
    }


def _views(facts: Mapping[str, Any]) -> Iterator[Any]:
    from rich.text import Text

    rewards = facts["rewards"]
    yield Text(
        f"{facts['scored']:,} of {facts['rows']:,} answers scored: {rewards['up']:,} rewards up, {rewards['down']:,} down, "
        f"{rewards['new']:,} new."
    )
    for reason, count in facts["unscored"].items():
        yield Text(printable(f"Unscored, {count:,}: {reason}"), "yellow")
    for name, what in (
        ("kept", "that could not be scored keep the reward that they had"),
        ("nothing_on_record", "failed or left nothing on record: they stay as they were"),
        ("not_in_questions", "are not in the file of questions: they stay as they were"),
        (
            "left_for_want_of_money",
            "were not scored, since that could have passed the limit of dollars: they stay as they were",
        ),
    ):
        if facts[name]:
            yield Text(f"{facts[name]:,} answers {what}.")
    if names := facts["questions_without_answers"]:
        shown = ", ".join(names[:_MAX_NAMES]) + (", ..." if len(names) > _MAX_NAMES else "")
        said = f"{len(names):,} of the questions given have no answer on record; check their task and id: {shown}"
        yield Text(printable(said), "yellow")
    if facts["usd"] or facts["unpriced"]:
        unknown = f", and what {facts['unpriced']:,} scores cost is unknown" if facts["unpriced"] else ""
        yield Text(f"Scoring took {usd(facts['usd'])}{unknown}.")
    agreement = facts["agreement"]
    if agreement:
        low, high = agreement["accuracy_interval"]
        yield Text(
            f"Agreement with {agreement['n']:,} labels: accuracy {agreement['accuracy']:.3f} ({interval(low, high)})"
        )
        if agreement["kappa"] is None:
            yield Text("  Cohen's kappa: none, since both always say the same one thing")
        else:
            low, high = agreement["kappa_interval"]
            yield Text(f"  Cohen's kappa {agreement['kappa']:.3f} ({interval(low, high)}), 95% intervals")
        yield Text(f"  both right {agreement['both_right']:,}, both wrong {agreement['both_wrong']:,}")
        yield Text(f"  too kind (right for the scorer alone) {agreement['too_kind']:,}")
        yield Text(f"  too harsh (wrong for the scorer alone) {agreement['too_harsh']:,}")
    yield Text(printable(f"Written to {facts['out']}." if "out" in facts else f"The scores are in {facts['log']}."))
