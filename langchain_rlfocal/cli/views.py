"""Views: the consoles and progress bars of the command line, and what its results look like on them.

What a program may read goes to stdout, everything else to stderr. A terminal of 80 columns is enough for every table. Names
are data: they neither style nor steer the terminal.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from langchain_rlfocal.redaction import printable

if TYPE_CHECKING:
    from langchain_rlfocal.evaluation import Figures, Report
    from langchain_rlfocal.evaluation.certification import Tested
    from langchain_rlfocal.evaluation.rewrites import Rewritten
    from langchain_rlfocal.evaluation.rivals import Frontiers
    from langchain_rlfocal.policies.certificates import Certificate
    from langchain_rlfocal.training import NewTask
    from langchain_rlfocal.training.sweep import Sweep

_WITHOUT_FUSION = (
    "Without the baseline supervised fusion: training fits it where scikit-learn is installed "
    "(`pip install 'langchain-rlfocal[evaluation]'`)."
)


def output() -> Console:
    """Return the console of stdout."""
    return Console(highlight=False)


def messages() -> Console:
    """Return the console of stderr."""
    return Console(stderr=True, highlight=False)


def progress_bar() -> Progress:
    """Return a progress bar on stderr where that is a terminal; it leaves nothing behind."""
    console = messages()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def json_text(value: Mapping[str, Any]) -> str:
    """Write one JSON object for stdout."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)


# ---- figures


def usd(amount: float | None) -> str:
    """Write dollars: to the cent from a dollar on, and small ones as exactly as they need."""
    if amount is None:
        return "unknown"
    digits = 2 if amount >= 1 or not amount else 4 if amount >= 0.01 else 6
    return f"${amount:,.{digits}f}"


def counted(num: int, noun: str) -> str:
    """Write a number of things, which are one or several `noun`s."""
    return f"{num:,} {noun}{'' if num == 1 else 's'}"


def interval(low: float, high: float, *, sign: str = "") -> str:
    """Write an interval of scores."""
    return f"{low:{sign}.3f} to {high:{sign}.3f}"


# ---- train


def train_views(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Show what was learned from, and what that gave on the validation rows."""
    validation = facts["card"]["validation"]
    curve = [point for point in facts["card"]["curve"] if not {"max_team", "member"} & point.keys()]
    best, member_scores = validation["single_best"], validation["member_scores"]
    judged, held_out = validation["queries"], facts["queries"]["validation"]
    yield Text.assemble((facts["policy_id"], "bold"), f" in {printable(facts['path'])}")
    counts = [f"{count} {name}" for name, count in facts["queries"].items() if count or name != "repeated"]
    lines = {
        "members": printable(", ".join(facts["members"])),
        "queries": ", ".join(counts),
        "chosen by": f"score {validation['score']:.3f} with {validation['mean_calls']:.2f} calls on {judged} rows"
        + (f", {judged - held_out} of them learned from" if judged > held_out else ""),
        "single best": f"{printable(best)}, {member_scores[best]:.3f} on the {held_out} validation rows",
        "cost weight": " to ".join(
            f"{point['cost_weight']:g} ({point['mean_calls']:.2f} calls, score {point['score']:.3f})"
            for point in (curve[0], curve[-1])
        ),
    }
    for label, text in lines.items():
        yield Text(f"{label:<13}{text}")
    unit = facts["cost_unit"]
    why = f" ({unit['reason']})" if unit["asked"] == "auto" else ""
    yield Text(f"{'cost unit':<13}{unit['taken']}{printable(why)}")
    yield Text(f"{'metrics':<13}{printable(facts['metrics'])}")
    if facts["without_answers"]:
        yield Text(
            "No row holds an answer that others can share: nobody is seen to agree, and there is only routing, to who is good at "
            "such a question.",
            "yellow",
        )
    if facts["queries"]["repeated"]:
        yield Text("Repeated: queries with the text of a test query. They are left out.", "yellow")
    if facts["missing"]:
        yield Text(_holes(facts["missing"], facts["card"]), "yellow")
    if facts["unscored"]:
        yield Text(
            f"Answers on record that nobody scored: {facts['unscored']:,}. What they are worth was estimated from agreement.",
            "yellow",
        )
    for doubt in facts["warnings"]:
        yield Text(doubt, "yellow")
    if facts["contradictions"]:
        yield Text(_contradictions(facts["contradictions"]), "yellow")
    if "supervised_fusion" in facts["missing_baselines"]:
        yield Text(_WITHOUT_FUSION, "yellow")


def sweep_views(done: "Sweep", facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Show each setting's validation score over its seeds, and which is best."""
    settings, best = done.settings, done.best_setting
    varied = [name for name in settings[0].varied if len({one.varied[name] for one in settings}) > 1]
    table = _plain_table(
        "", *(name.replace("_", "\n") for name in varied), "seeds", "validation\nscore", "spread", "calls"
    )
    for one in settings:
        table.add_row(
            "best" if one == best else "",
            *(f"{one.varied[name]:g}" for name in varied),
            str(len(one.runs)),
            f"{one.score:.3f}",
            "-" if one.spread is None else f"{one.spread:.3f}",
            f"{one.calls:.2f}",
            style="bold" if one == best else None,
        )
    queries = facts["queries"]
    yield _titled(f"Trained on {queries['train']:,} queries, with {queries['validation']:,} for validation", table)
    yield ""
    if done.best is not None:
        yield Text.assemble(
            (str(done.best.policy_id), "bold"), f" in {printable(facts['path'])}/best: {done.best.name}"
        )
    yield Text(
        "spread: standard deviation over the seeds. Chosen by the mean validation score, then by the seed's own, so that it is a "
        f"little flattered; where validation rows are few, training rows count with them. The {queries['test']:,} test queries were not read: `rlfocal evaluate` scores the best on them."
    )
    for doubt in facts["warnings"]:
        yield Text(doubt, "yellow")


def _holes(count: int, card: Mapping[str, Any]) -> str:
    if card.get("rows", {}).get("missing") == "fail":
        return f"Queries that lack a member's answer, which counts as its failure: {count}."
    return f"Queries that not every member was asked: {count}."


def _contradictions(count: int) -> str:
    return (
        f"Queries of which one answer is right for one member and wrong for another: {count}. Either may be; where the answer "
        "stands for both, it is worth their mean."
    )


# ---- evaluate

_WAYS = ("policy", "single_best", "plurality", "best_fixed_team", "supervised_fusion", "oracle")
"""Ways of answering whose scores per task fit."""


MAX_TASKS = 40
"""Tasks whose scores are shown at most: those of most queries."""


def evaluation_views(report: "Report", facts: Mapping[str, Any], warnings: Sequence[str]) -> Iterator[RenderableType]:
    """Show the policy and the baselines, their scores on each task, and how the figures were made."""
    yield _report_table(report, title=f"{facts['policy_id']} on {report.queries} {facts['split']} queries")
    yield ""
    yield _task_table(report)
    yield ""
    policy, target = report.policy, facts["target"]
    dollars = "" if policy.cost_usd is None else f", {usd(policy.cost_usd)}"
    seconds = "" if policy.latency_s is None else f", {policy.latency_s:.2f} s"
    most = f"at most {facts['max_team']} members in {facts['max_rounds']} rounds"
    yield Text(f"The policy takes {report.mean_rounds:.2f} rounds{dollars}{seconds} a query; {most}.")
    if target is None:
        yield Text(f"Its cost weight is {facts['cost_weight']:.4g}.")
    else:
        yield Text(f"Its target is {_target_text(target)} a query. {_taken(policy, target)}")
    if report.oracle_gap_share is not None:
        yield Text(f"It goes {report.oracle_gap_share:.1%} of the way from single best to Oracle.")
    yield Text(
        f"Its confidence is {report.calibration_error:.3f} off what its answers are worth (expected calibration error)."
    )
    yield Text("The Oracle returns the best answer of any member, in hindsight. calls: members asked per query.")
    if not facts["task_labels"]:
        yield Text("Task labels were hidden from the policy and the baselines.")
    if report.frontiers is not None:
        yield ""
        yield from _frontier_views(report.frontiers, facts)
    for warning in (*doubts(report, facts), *warnings):
        yield Text(warning, "yellow")


def _frontier_views(frontiers: "Frontiers", facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Show how the policy and its rivals compare over all spending, and who is ahead."""
    unit = frontiers.unit
    low, high = _spending(frontiers.low, unit), _spending(frontiers.high, unit)
    table = _plain_table("", "AIQ", "points", "spending at\nits best score", "best\nscore", "policy\n− this", "95 %")
    for name, frontier in {"policy, mixed": frontiers.policy, **frontiers.rivals}.items():
        best = (
            (_spending(frontier.hull[-1].spending, unit), f"{frontier.hull[-1].score:.3f}")
            if frontier.hull
            else ("-", "-")
        )
        row = [f"{frontier.aiq:.3f}", str(frontier.tried), *best]
        if name in frontiers.differences:
            difference = frontiers.differences[name]
            row += [f"{difference.mean:+.3f}", interval(difference.low, difference.high, sign="+")]
        table.add_row(name.replace("_", " "), *row, style=None if name in frontiers.rivals else "bold")
    yield _titled(f"Score over spending, {low} to {high} {unit} a query", table)
    yield ""
    yield Text(
        "AIQ: mean score over that range, on the non-decreasing convex hull of the points' test figures, from nothing "
        "spent for nothing scored. Points were chosen without the test rows; the hull is taken over them."
    )
    for name in frontiers.ahead:
        difference = frontiers.differences[name]
        doubt = ", by no more than chance may give" if difference.high >= 0 else ""
        yield Text(f"Ahead of the policy: {name.replace('_', ' ')}, by {-difference.mean:.3f} of AIQ{doubt}.", "yellow")
    if frontiers.rivals and not frontiers.ahead:
        yield Text("No rival is ahead of the policy.")
    if frontiers.note:
        yield Text(printable(frontiers.note), "yellow")
    if frontiers.missing:
        yield Text(f"Rivals left out: {', '.join(frontiers.missing).replace('_', ' ')}.", "yellow")
    if facts["rivals_from"] == "outcomes":
        yield Text("The checkpoint holds no rivals: they were fitted now, on other rows of these outcomes.", "yellow")
    if facts["rivals_from"] == "nowhere":
        yield Text("The checkpoint holds no rivals, and no rows are left to fit them on.", "yellow")


def _spending(amount: float, unit: str) -> str:
    """Write spending whose unit stands beside it; figures of one column have as many digits."""
    return f"{amount:.6f}" if unit == "usd" else f"{amount:.4g}"


def _target_text(target: Mapping[str, float]) -> str:
    from langchain_rlfocal.policies.targets import Target  # loads NumPy, which `--help` does not need

    return next(str(Target(name, value)) for name, value in target.items())


def _taken(policy: "Figures", target: Mapping[str, float]) -> str:
    """Say what a query took, in the target's unit."""
    (name,) = target
    amounts: dict[str, tuple[float | None, Callable[[float], str]]] = {
        "target_calls": (policy.mean_calls, "{:.3f} calls".format),
        "target_tokens": (policy.tokens, "{:.1f} tokens".format),
        "target_seconds": (policy.latency_s, "{:.3f} s".format),
    }
    amount, written = amounts.get(name, (policy.cost_usd, usd))
    if amount is None:
        return "What it took is not known: some call of these outcomes has no such figure on record, and counts as training knew it."
    return f"It took {written(amount)}."


def doubts(report: "Report", facts: Mapping[str, Any]) -> Iterator[str]:
    """Say what flatters or lessens the figures."""
    if facts["baselines_from"] == "outcomes":
        yield "The checkpoint holds no baselines: they were fitted now, on other rows of these outcomes."
    if facts["baselines_from"] == "nowhere":
        yield "The checkpoint holds no baselines, and no rows are left to fit them on: some are left out."
    elif "supervised_fusion" in report.missing_baselines:
        yield _WITHOUT_FUSION
    if report.dropped:
        yield f"Queries left out because a member did not answer them: {report.dropped}."
    if report.bias:
        yield report.bias
    if report.unmeasured:
        yield f"Without a query that counts: {', '.join(report.unmeasured).replace('_', ' ')}."
    if report.missing and facts["missing_is"] == "fail":
        yield f"Queries that lack a member's answer, which counts as its failure: {report.missing}."
    if report.contradictions:
        yield _contradictions(report.contradictions)
    if facts["repeated"]:
        yield f"Queries left out of all parts because they have the text of a test query: {facts['repeated']}."


def _report_table(report: "Report", *, title: str) -> RenderableType:
    # The heading of a difference would be wider than its figures.
    everything = {"policy": report.policy, **report.baselines}
    counts = [] if all(figures.n == report.queries for figures in everything.values()) else ["n"]
    table = _plain_table("", *counts, "score", "95 %", "macro", "calls", "policy\n− this", "95 %")
    for name, figures in everything.items():
        row = [
            *(str(figures.n) for _ in counts),
            f"{figures.score.mean:.3f}",
            interval(figures.score.low, figures.score.high),
            f"{figures.macro:.3f}",
            f"{figures.mean_calls:.2f}",
        ]
        if name in report.differences:
            difference = report.differences[name]
            row += [f"{difference.mean:+.3f}", interval(difference.low, difference.high, sign="+")]
        table.add_row(name.replace("_", " "), *row, style="bold" if name == "policy" else None)
    return _titled(title, table)


def _task_table(report: "Report") -> RenderableType:
    ways = [way for way in _WAYS if way == "policy" or way in report.baselines]
    table = _plain_table("task", "n", *(way.replace("_", "\n") for way in ways))
    table.columns[0].overflow = "fold"
    largest = set(sorted(report.per_task, key=lambda task: -(report.per_task[task]["n"] or 0))[:MAX_TASKS])
    for task, scores in report.per_task.items():
        if task in largest:
            shown = ("-" if (mean := scores[way]) is None else f"{mean:.3f}" for way in ways)
            table.add_row(Text(printable(task)), str(scores["n"]), *shown)
    if len(report.per_task) > 1:
        means = [report.policy if way == "policy" else report.baselines[way] for way in ways]
        table.add_row("mean of tasks", "", *(f"{figures.macro:.3f}" for figures in means), style="bold")
    left = len(report.per_task) - len(largest)
    return _titled(f"Score per task{f', without {left} of fewer queries (--json has all)' if left else ''}", table)


def rewrites_views(written: Mapping[str, "Rewritten"]) -> Iterator[RenderableType]:
    """Show what a policy does with the same questions, written in other ways."""
    table = _plain_table("", "texts\nchanged", "teams\nkept", "score", "change", "calls", "change", "spending\nchange")
    for name, figures in written.items():
        table.add_row(
            name,
            f"{figures.texts_changed:.1%}",
            f"{figures.first_teams_kept:.1%}",
            f"{figures.score:.3f}",
            f"{figures.score_change:+.3f}",
            f"{figures.mean_calls:.2f}",
            f"{figures.calls_change:+.2f}",
            f"{figures.spending_change:+.1%}",
        )
    yield ""
    yield _titled("The same questions, written in other ways", table)
    yield ""
    yield Text("teams kept: queries whose first round asks the same members. Answers are those on record.")


# ---- evaluate --leave-task-out

_ON_NEW_TASKS = ("single_best", "plurality", "best_fixed_team", "oracle")


def new_tasks_views(found: Sequence["NewTask"], facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Show what policies score on tasks that they were not trained on, beside what needs no training."""
    ways = [way for way in _ON_NEW_TASKS if all(way in one.report.baselines for one in found)]
    table = _plain_table("left out", "n", "policy", "95 %", "calls", *(way.replace("_", "\n") for way in ways))
    table.columns[0].overflow = "fold"
    for one in found:
        policy, baselines = one.report.policy, one.report.baselines
        table.add_row(
            Text(printable(one.name)),
            f"{policy.n}",
            f"{policy.score.mean:.3f}",
            interval(policy.score.low, policy.score.high),
            f"{policy.mean_calls:.2f}",
            *(f"{baselines[way].score.mean:.3f}" for way in ways),
        )
    if len(found) > 1:
        num = len(found)
        scores = [sum(one.report.baselines[way].score.mean for one in found) / num for way in ways]
        table.add_row(
            "mean",
            "",
            f"{sum(one.report.policy.score.mean for one in found) / num:.3f}",
            "",
            f"{sum(one.report.policy.mean_calls for one in found) / num:.2f}",
            *(f"{score:.3f}" for score in scores),
            style="bold",
        )
    yield _titled("New tasks: trained on all others", table)
    yield ""
    target = facts["target"]
    wanted = "" if target is None else f", for a target of {_target_text(target)} a query"
    yield Text(f"At most {facts['max_team']} members in {facts['max_rounds']} rounds{wanted}.")
    if not facts["task_labels"]:
        yield Text("Task labels were hidden from the policy and the baselines.")


# ---- certify


def certificate_views(certificate: "Certificate", tested: Sequence["Tested"], *, path: str) -> Iterator[RenderableType]:
    """Show a certificate, and the operating points that were tested for it."""
    from langchain_rlfocal.policies.certificates import Promise  # loads NumPy, as above

    unit = certificate.unit
    table = _plain_table("", f"{unit} a query", "score", "p", left=(0,))
    promise = Promise.parse(certificate.promise)
    for one in tested:
        passed = "passed" if one.p_value <= 1 - promise.confidence else "failed"
        table.add_row(passed, _spending(one.spending, unit), f"{one.score:.3f}", f"{one.p_value:.3g}")
    yield _titled(f"Operating points, on {certificate.rows} rows that training did not see", table)
    yield ""
    side = "below" if promise.margin <= 0 else "above"
    bound = "at most" if promise.margin <= 0 else "at least"
    yield Text.assemble((certificate.promise, "bold"), f" in {printable(path)}")
    yield Text(
        f"Shown with confidence {promise.confidence:g}: at {_spending(certificate.spending, unit)} {unit} a query the "
        f"policy scores on average {bound} {abs(promise.margin):g} {side} the best of {len(certificate.members)} members, "
        "on queries like these."
    )
    yield Text(f"On these rows it scores {certificate.score:.3f}, the best member {certificate.best_member_score:.3f}.")


# ---- diversity

# What is shown of the best teams: measure to heading.
_SHOWN = {"accuracy": "accuracy", "plurality_accuracy": "plurality", "focal": "focal", "adjusted": "adjusted"}
_PAIR_COLUMNS = 12
"""Columns of a table of pairs that fit on a terminal; more members make more tables."""


def diversity_views(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Show members, the pool's measures, pairs and best teams; members are named once and then go by their number."""
    from langchain_rlfocal.evaluation.teams import CHOSEN_BY, MEASURES  # loads NumPy, as above

    numbers = {member["name"]: str(number) for number, member in enumerate(facts["members"], start=1)}
    table = _plain_table("", "member", "accuracy", left=(0, 1))
    for member in facts["members"]:
        table.add_row(numbers[member["name"]], Text(printable(member["name"])), f"{member['accuracy']:.3f}")
    yield _titled(f"Members on {facts['queries']:,} queries", table)
    yield ""
    table = _plain_table("measure", "value", "grows with", left=(0, 2))
    for name, measured in facts["pool"].items():
        table.add_row(MEASURES[name][0], _figure(measured["value"]), measured["grows_with"] or "")
    yield _titled("The whole pool as one team", table)
    yield ""
    for start in range(0, len(numbers) if len(numbers) > 1 else 0, _PAIR_COLUMNS):
        columns = range(start, min(start + _PAIR_COLUMNS, len(numbers)))
        table = _plain_table("", *(str(column + 1) for column in columns))
        for row, values in enumerate(facts["pairs"]):
            table.add_row(str(row + 1), *("-" if row == column else f"{values[column]:z.2f}" for column in columns))
        yield _titled("Focal diversity of pairs", table)
        yield ""
    table = _plain_table("team", *_SHOWN.values(), "best by", left=(0, len(_SHOWN) + 1))
    for team in facts["best_teams"]:
        by = ", ".join(CHOSEN_BY.get(name, name) for name in team["best_by"])
        table.add_row(" ".join(numbers[name] for name in team["members"]), *(_figure(team[n]) for n in _SHOWN), by)
    yield _titled("Best teams of each size", table)
    yield ""
    if not facts["labelled"]:
        yield Text(
            "There is no answer with a label that members could share: votes, and agreement of answers, are not measured.",
            "yellow",
        )
    if facts["max_team_size"] < len(numbers):
        limit = facts["max_team_size"]
        yield Text(f"Teams of more than {limit} of the {len(numbers)} members are not measured: too many.", "yellow")
    if facts["dropped"]:
        yield Text(f"{facts['dropped']} queries are left out, because a member did not answer them.", "yellow")
    if facts["unscored"]:
        yield Text(
            f"{facts['unscored']} queries are left out, because a member's answer to them was not scored.", "yellow"
        )
    yield Text(f"An answer is right from a score of {facts['right_from']}. Compare teams of equal size only.")
    yield Text("Teams were chosen on the queries that measure them: confirm a choice on others.")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:z.3f}"


# ---- tables


def _plain_table(*headings: str, left: Sequence[int] = (0,)) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index in left else "right", no_wrap=index not in left)
    return table


def _titled(title: str, table: Table) -> RenderableType:
    """Put a title above a table; the table's own would be folded to its width."""
    return Group(Text(title, "bold"), table)
