"""Facts: what a report says, as plain values: figures of an evaluation, laid out for a reader.

Nothing here is measured anew. Scores, intervals and differences are those of `evaluation.evaluate`; what it does not average is
averaged here over its own rows (`evaluation.report.Rows`), by its own functions. A figure that the outcomes cannot carry is None.
How it is drawn, and in which words, is for `charts`, `sentences` and `page`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from langchain_rlfocal.errors import InputError, OutcomeError
from langchain_rlfocal.evaluation.baselines import Baseline
from langchain_rlfocal.evaluation.metrics import (
    CALIBRATION_BINS,
    Estimate,
    bootstrap_mean,
    paired_difference,
)
from langchain_rlfocal.evaluation.report import Figures, Report, Rows
from langchain_rlfocal.evaluation.rivals import Frontiers, SpendingUnit, compare_frontiers
from langchain_rlfocal.evaluation.teams import diversity_facts
from langchain_rlfocal.outcomes import OutcomeTable
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.reporting.cases import Cases, cases_of

Floats = npt.NDArray[np.float64]

FEW_QUESTIONS = 200
"""On fewer questions an interval of a share is more than 7 points wide to either side, if half are right."""

MAX_TASKS = 40
"""Tasks that have a row of their own; the questions of the others are taken together."""

OTHER_TASKS = "other tasks"

MAX_TEAMS = 2000
"""Teams that are shown at most; of more, as many of each size as there is room for."""

MAX_STEPS = 500
"""Points of a curve of training at most."""

METRICS = "metrics.jsonl"
"""File of a training's metrics: in the checkpoint's directory, or beside it, as `<checkpoint>.metrics.jsonl`."""

STEP_NAMES = ("iteration", "step")
"""What a line of metrics may call its place in the training."""

Role = Literal["policy", "baseline", "bound"]


@dataclass(frozen=True, slots=True)
class Way:
    """One way of answering: what it scored, and what it took a question.

    Attributes:
        name: `policy`, or the name of a baseline.
        role: The policy, a baseline, or the Oracle, which is a bound.
        score: Mean score.
        macro: Mean of the tasks' mean scores.
        difference: The policy's score minus its own, paired; None for the policy, or where no question counts for both.
        spending: What a question takes, by unit; None where it is unknown of some call.
        latency_s: Seconds that a question waits; None where unknown.
        n: Questions that these are means over.
        basis: As in `Figures`.
    """

    name: str
    role: Role
    score: Estimate
    macro: float
    difference: Estimate | None
    spending: Mapping[SpendingUnit, float | None]
    latency_s: float | None
    n: int
    basis: str


@dataclass(frozen=True, slots=True)
class Spent:
    """What a question takes of one unit: of the policy, of the best single member, and the difference, paired."""

    policy: float
    best: float
    difference: Estimate


@dataclass(frozen=True, slots=True)
class Comparison:
    """A policy beside the best single member, on the questions that count for both.

    Attributes:
        best: The member that was best on the rows that training had.
        score: The policy's score minus the member's.
        spent: What both take, by unit, where it is known.
    """

    best: str
    score: Estimate
    spent: Mapping[SpendingUnit, Spent]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """An operating point of a frontier: mean spending, mean score, questions that count for it."""

    spending: float
    score: float
    n: int


@dataclass(frozen=True, slots=True)
class Curves:
    """What the policy and its rivals can do at every spending; see `evaluation.rivals.Frontiers`."""

    low: float
    high: float
    policy: tuple[CurvePoint, ...]
    rivals: Mapping[str, tuple[CurvePoint, ...]]
    quality: Mapping[str, float]
    differences: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True)
class Asking:
    """Who is asked for what: shares of the questions of a task.

    Attributes:
        members: Those who are asked at all, the most asked first.
        never: Those who are never asked.
        tasks: Name of each task, and how many questions it has.
        first: Share of the questions on which the member is asked in the first round, a row for each task.
        ever: On which it is asked in any round.
        returned: On which its answer is the one that is returned.
        rounds: Share of all questions that take so many rounds, from one.
        team_sizes: Share of all questions for which so many members are asked, from one.
    """

    members: tuple[str, ...]
    never: tuple[str, ...]
    tasks: tuple[tuple[str, int], ...]
    first: tuple[tuple[float, ...], ...]
    ever: tuple[tuple[float, ...], ...]
    returned: tuple[tuple[float, ...], ...]
    rounds: tuple[float, ...]
    team_sizes: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Bin:
    """Questions of which the confidence is in [low, high): how many, their share, its mean, and what the answers were worth.

    The share is that of all questions that count, by what each of them counts.
    """

    low: float
    high: float
    n: int
    share: float
    confidence: float
    score: Estimate


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far confidence is from what answers are worth; see `evaluation.metrics.expected_calibration_error`."""

    error: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class Team:
    """A team: who is in it, its focal diversity, and its accuracy by plurality vote."""

    members: tuple[str, ...]
    focal: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Teams:
    """Diversity against accuracy of all teams.

    Attributes:
        questions: Those on which all members were scored.
        total: Number of teams that were measured.
        max_size: The largest of them.
        correlation: Of focal diversity with accuracy over all teams of a size, by size; None where either does not vary.
        shown: The teams, or as many of each size as there is room for.
    """

    questions: int
    total: int
    max_size: int
    correlation: Mapping[int, float | None]
    shown: tuple[Team, ...]


@dataclass(frozen=True, slots=True)
class Training:
    """What training left of its metrics.

    Attributes:
        total: Steps on record.
        steps: Place of each step that is shown.
        metrics: Value of each metric at these steps, None where it was not measured.
        best: The step whose policy was kept, None where unknown.
    """

    total: int
    steps: tuple[float, ...]
    metrics: Mapping[str, tuple[float | None, ...]]
    best: float | None


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a report says.

    Attributes:
        policy_id: The policy.
        questions: Number of questions that were to be answered.
        knows_rows: Whether the policy may have learned from some of them.
        unit: The unit of spending that comes first.
        units: All units in which spending is known, that one first.
        ways: The policy, then the baselines in the order of `evaluation.BASELINES`.
        comparison: The policy beside the best single member; None where there is none.
        curves: Score over spending, by unit.
        per_task: Mean score on each task by way, and the number of questions, as `evaluate` prints it.
        asking: Who is asked for what.
        calibration: Of the confidence.
        teams: Diversity against accuracy; None where no question was scored for all members.
        training: Metrics of the training; None where there are none.
        cases: Where the policy did better or worse than the best single member; None where there is none to compare with.
        notes: What a reader must know before believing a figure, a sentence each.
        manifest: How the report came about, values for JSON.
    """

    policy_id: str
    questions: int
    knows_rows: bool
    unit: SpendingUnit
    units: tuple[SpendingUnit, ...]
    ways: tuple[Way, ...]
    comparison: Comparison | None
    curves: Mapping[SpendingUnit, Curves]
    per_task: Mapping[str, Mapping[str, float | None]]
    asking: Asking
    calibration: Calibration
    teams: Teams | None
    training: Training | None
    cases: Cases | None
    notes: tuple[str, ...]
    manifest: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return asdict(self)


def facts_of(
    policy: RLFocalPolicy,
    report: Report,
    table: OutcomeTable,
    *,
    knows_rows: bool,
    rivals: Mapping[str, Baseline],
    max_team: int,
    max_rounds: int,
    hide_tasks: bool = False,
    training: Training | None = None,
    notes: Sequence[str] = (),
    manifest: Mapping[str, Any] | None = None,
    with_texts: bool = True,
    seed: int = 0,
) -> Facts:
    """Gather what a report says of an evaluated policy.

    Args:
        policy: The policy.
        report: What `evaluate` found, with `frontiers`.
        table: The outcomes that its rows were laid out from.
        knows_rows: Whether the policy may have learned from some of these rows.
        rivals: The fitted rivals that it was compared with.
        max_team: How many members the policy may ask.
        max_rounds: How many rounds it may take.
        hide_tasks: Whether it saw no task label.
        training: Its training's metrics, as `read_metrics` reads them.
        notes: Sentences to add to the notes, first.
        manifest: How the report came about.
        with_texts: Whether to show questions and replies.
        seed: Seed of the bootstrap of what `evaluate` does not average.
    """
    rows = report.rows
    units = _units_of(report)
    rng = np.random.default_rng(seed)
    frontiers = {} if report.frontiers is None else {report.frontiers.unit: report.frontiers}
    for unit in units if frontiers else ():
        if unit not in frontiers:
            frontiers[unit] = compare_frontiers(
                policy,
                rows.grid,
                rivals,
                max_team=max_team,
                max_rounds=max_rounds,
                cost_unit=unit,
                hide_tasks=hide_tasks,
                seed=seed,
            )
    return Facts(
        policy_id=policy.policy_id,
        questions=report.queries,
        knows_rows=knows_rows,
        unit=units[0],
        units=units,
        ways=(
            _way("policy", report.policy, None),
            *(_way(name, each, report.differences.get(name)) for name, each in report.baselines.items()),
        ),
        comparison=_comparison(report, units, rng),
        curves={unit: _curves(frontiers[unit]) for unit in units if unit in frontiers},
        per_task=report.per_task,
        asking=asking_of(rows),
        calibration=calibration_of(rows, report.calibration_error, rng=rng),
        teams=teams_of(rows),
        training=training,
        cases=cases_of(rows, table, with_texts=with_texts),
        notes=(*notes, *_notes(report)),
        manifest=manifest or {},
    )


def _units_of(report: Report) -> tuple[SpendingUnit, ...]:
    """List the units in which what the policy and the best single member take is known; the frontiers' unit first."""
    everyone = [report.policy, *(each for name, each in report.baselines.items() if name == "single_best")]
    known: list[SpendingUnit] = [
        unit
        for unit in get_args(SpendingUnit)
        if all(of is not None for of in (_spending(each)[unit] for each in everyone))
        and any(_spending(each)[unit] for each in everyone)
    ]
    first = None if report.frontiers is None else report.frontiers.unit
    return tuple(sorted(known, key=lambda unit: unit != first))


def _spending(figures: Figures) -> dict[SpendingUnit, float | None]:
    return {"usd": figures.cost_usd, "tokens": figures.tokens, "calls": figures.mean_calls}


def _way(name: str, figures: Figures, difference: Estimate | None) -> Way:
    role: Role = "policy" if name == "policy" else "bound" if name == "oracle" else "baseline"
    return Way(
        name=name,
        role=role,
        score=figures.score,
        macro=figures.macro,
        difference=difference,
        spending=_spending(figures),
        latency_s=figures.latency_s,
        n=figures.n,
        basis=figures.basis,
    )


def _comparison(report: Report, units: Sequence[SpendingUnit], rng: np.random.Generator) -> Comparison | None:
    if "single_best" not in report.differences:
        return None
    rows = report.rows
    counts, weights = rows.sample("policy", "single_best")
    spent: dict[SpendingUnit, Spent] = {}
    for unit in units:
        policy, best = (rows.taken(name, unit)[counts] for name in ("policy", "single_best"))
        if np.isfinite(policy + best).all():
            mean, other = (float(np.average(each, weights=weights)) for each in (policy, best))
            spent[unit] = Spent(mean, other, paired_difference(policy, best, rng=rng, weights=weights))
    best_member = rows.grid.members[int(rows.decisions["single_best"].chosen[0])]
    return Comparison(best=best_member, score=report.differences["single_best"], spent=spent)


def _curves(frontiers: Frontiers) -> Curves:
    ways = {"policy": frontiers.policy, **frontiers.rivals}
    hulls = {
        name: tuple(CurvePoint(point.spending, point.score, point.n) for point in each.hull)
        for name, each in ways.items()
    }
    return Curves(
        low=frontiers.low,
        high=frontiers.high,
        policy=hulls.pop("policy"),
        rivals=hulls,
        quality={name: each.aiq for name, each in ways.items()},
        differences=frontiers.differences,
    )


def asking_of(rows: Rows) -> Asking:
    """Count who is asked for what, over all questions of the rows: of whom to ask, no score is needed to know."""
    grid, asked_in = rows.grid, np.asarray(rows.asked_in["policy"])
    names, counts = np.unique(np.array(grid.tasks, dtype=object), return_counts=True)
    largest = set(names[np.argsort(-counts, kind="stable")[:MAX_TASKS]].tolist())
    if len(names) == MAX_TASKS + 1:
        largest = set(names.tolist())  # one other is shown by its own name
    groups = np.array([task if task in largest else OTHER_TASKS for task in grid.tasks], dtype=object)
    tasks = [*sorted(largest), *([OTHER_TASKS] if len(names) > len(largest) else [])]
    order = np.argsort(-(asked_in > 0).sum(axis=0), kind="stable")
    order = order[(asked_in[:, order] > 0).any(axis=0)]
    returned = np.equal.outer(rows.played.chosen, np.arange(len(grid.members)))

    def shares(is_so: npt.NDArray[np.bool_]) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(is_so[groups == task][:, order].mean(axis=0).tolist()) for task in tasks)

    def histogram(values: npt.NDArray[np.integer]) -> tuple[float, ...]:
        return tuple((np.bincount(values)[1:] / len(values)).tolist())

    return Asking(
        members=tuple(grid.members[m] for m in order),
        never=tuple(name for m, name in enumerate(grid.members) if m not in order),
        tasks=tuple((task, int((groups == task).sum())) for task in tasks),
        first=shares(asked_in == 1),
        ever=shares(asked_in > 0),
        returned=shares(returned),
        rounds=histogram(asked_in.max(axis=1)),
        team_sizes=histogram((asked_in > 0).sum(axis=1)),
    )


def calibration_of(rows: Rows, error: float, *, rng: np.random.Generator) -> Calibration:
    """Put the questions that count for the policy into the bins of the expected calibration error, `error`."""
    counts, weights = rows.sample("policy")
    confidence, scores = rows.played.confidence[counts], rows.scores["policy"][counts]
    place = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    bins = []
    for number in np.unique(place).tolist():
        here = place == number
        own = None if weights is None else weights[here]
        bins.append(
            Bin(
                low=number / CALIBRATION_BINS,
                high=(number + 1) / CALIBRATION_BINS,
                n=int(here.sum()),
                share=float(here.mean() if own is None or weights is None else own.sum() / weights.sum()),
                confidence=float(np.average(confidence[here], weights=own)),
                score=bootstrap_mean(scores[here], rng=rng, weights=own),
            )
        )
    return Calibration(error, tuple(bins))


def teams_of(rows: Rows) -> Teams | None:
    """Measure all teams of the members on the rows; None where no question was scored for all members, or no team can vote."""
    try:
        facts = diversity_facts(rows.grid)
    except OutcomeError:
        return None
    if not facts["labelled"]:
        return None
    teams = [Team(tuple(one["members"]), one["focal"], one["plurality_accuracy"]) for one in facts["teams"]]
    by_size: dict[int, list[Team]] = {}
    for team in teams:
        by_size.setdefault(len(team.members), []).append(team)
    # The smallest groups are shown whole, and leave their room to the larger ones.
    shown, room, left = [], MAX_TEAMS, len(by_size)
    for _, group in sorted(by_size.items(), key=lambda item: len(item[1])):
        count = min(len(group), room // left)
        best = max(group, key=lambda team: team.accuracy)
        taken = [group[at * len(group) // count] for at in range(count)]
        shown += taken if best in taken else [*taken[:-1], best]
        room, left = room - count, left - 1
    return Teams(
        questions=facts["queries"],
        total=len(teams),
        max_size=facts["max_team_size"],
        correlation={size: _correlation(group) for size, group in by_size.items() if size > 1},
        shown=tuple(sorted(shown, key=lambda team: (len(team.members), team.members))),
    )


def _correlation(teams: Sequence[Team]) -> float | None:
    focal, accuracy = np.array([team.focal for team in teams]), np.array([team.accuracy for team in teams])
    if len(teams) < 3 or np.ptp(focal) < 1e-12 or np.ptp(accuracy) < 1e-12:
        return None
    return float(np.corrcoef(focal, accuracy)[0, 1])


def read_metrics(checkpoint: Path, path: Path | None = None, *, best: Any = None) -> Training | None:
    """Read what training left of its metrics; None where it left nothing that can be read.

    Args:
        checkpoint: The checkpoint's directory, in which or beside which they are looked for.
        path: Their file; None looks for it.
        best: The step whose policy was kept, as the checkpoint's card has it.

    Raises:
        InputError: The file that is named cannot be read, or holds no metrics.
    """
    places = [checkpoint / METRICS, checkpoint.with_name(f"{checkpoint.name}.{METRICS}")] if path is None else [path]
    found = next((training for place in places if (training := _metrics_in(place, best)) is not None), None)
    if found is None and path is not None:
        raise InputError(
            f"`{path}` must hold the metrics of a training, a JSON object a line with a `step`. Check the path."
        )
    return found


def _metrics_in(path: Path, best: Any) -> Training | None:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    lines: list[tuple[float, Mapping[str, Any]]] = []
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue  # a torn line of a run that was killed
        at = (
            next((found[name] for name in STEP_NAMES if _is_number(found.get(name))), None)
            if isinstance(found, dict)
            else None
        )
        if at is not None:
            lines.append((float(at), found))
    if not lines:
        return None
    stride = -(-len(lines) // MAX_STEPS)
    kept = [*lines[:-1:stride], lines[-1]]
    names = dict.fromkeys(name for _, found in lines for name, value in found.items() if _is_number(value))
    metrics = {
        name: tuple(float(found[name]) if _is_number(found.get(name)) else None for _, found in kept)
        for name in names
        if name not in STEP_NAMES
    }
    return Training(len(lines), tuple(at for at, _ in kept), metrics, float(best) if _is_number(best) else None)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _notes(report: Report) -> list[str]:
    notes = []
    if report.policy.n < FEW_QUESTIONS:
        notes.append(
            f"{report.policy.n} questions are few: the intervals are wide, and what is not told apart here may still differ."
        )
    grid = report.rows.grid
    unscored = int((grid.recorded & np.isnan(grid.scores)).sum())
    if unscored:
        notes.append(
            f"Answers on record that nobody scored: {unscored:,}. They count for no figure, neither right nor wrong."
        )
    holes = int((~grid.recorded).any(axis=1).sum())
    if holes:
        notes.append(f"Questions that not every member was asked: {holes:,} of {len(grid):,}.")
    return notes
