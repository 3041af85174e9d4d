"""Page: a report as one HTML file that asks nobody for anything.

Vega's scripts stand in the page, and its Content-Security-Policy admits these scripts by their digests and nothing else: no request
leaves it, and a text of a member or a user is never run, whatever it says. Jinja escapes every text; `cases` has cut them. The same
facts give the same bytes.
"""

import hashlib
import importlib
import json
import os
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from langchain_rlfocal.errors import InputError, MissingDependencyError
from langchain_rlfocal.outcomes.files import written_whole
from langchain_rlfocal.reporting import sentences
from langchain_rlfocal.reporting.cases import Text
from langchain_rlfocal.reporting.facts import METRICS, Asking, Comparison, Facts, Training
from langchain_rlfocal.reporting.sentences import amount, name_of, percent, points

MAX_NAME = 80
"""Characters of a member's or a task's name that are shown at most."""

MAX_ROWS = 40
"""Rows of a table beside a chart at most."""

MAX_FACTS, MAX_FACT = 100, 500
"""Lines of a part of the manifest, and characters of one, that are shown at most: a checkpoint may come from a stranger."""

MAIN_METRICS = ("reward", "validation", "calls", "approx_kl")
"""Metrics of training that are drawn first; the others unfold."""

_DARK_SIZES, _LIGHT_SIZES = ("#4077ab", "#d5e9ff"), ("#5b98d2", "#0a2c57")
"""Colours of the smallest and the largest teams."""

Table = dict[str, Any]

_SECTION: dict[str, Any] = {"choice": "", "more": (), "tables": (), "is_grid": False, "after": ""}
"""What a section has where it says nothing else."""


def check_installed() -> None:
    """Check that a page can be drawn.

    Raises:
        MissingDependencyError: A library of the extra `report` is not installed.
    """
    for module in ("altair", "jinja2", "vl_convert"):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise MissingDependencyError(
                f"A report's page needs {module}: `pip install 'langchain-rlfocal[report]'`. "
                "Or print what it would say, with `--json`."
            ) from error


def write_page(facts: Facts, path: str | os.PathLike[str]) -> None:
    """Write a report: the whole file appears at once, or nothing does.

    Raises:
        MissingDependencyError: A library of the extra `report` is not installed.
        InputError: The file's folder does not exist or may not be written to.
    """
    check_writable(path)
    page = page_of(facts).encode("utf-8")
    with written_whole(path) as sink:
        sink.write(page)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Check that a page can be written.

    Raises:
        InputError: The path is a folder, or its folder does not exist or may not be written to.
    """
    file = Path(path).resolve()
    if file.is_dir() or not file.parent.is_dir() or not os.access(file.parent, os.W_OK):
        raise InputError(
            f"`--out` must name a file in a folder that exists and may be written to, got {str(path)!r}. "
            "For example `--out report.html`."
        )


def page_of(facts: Facts) -> str:
    """Draw a report.

    Raises:
        MissingDependencyError: A library of the extra `report` is not installed.
    """
    check_installed()
    import altair as alt  # noqa: PLC0415  # an optional part, checked above
    import jinja2  # noqa: PLC0415
    import markupsafe  # noqa: PLC0415  # which comes with it
    import vl_convert  # noqa: PLC0415

    shown = _shown(facts)
    sections = [_SECTION | section for section in _sections(shown)]
    panels = [panel for section in sections for panel in (*section["panels"], *section["more"])]
    version = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    library, script = _library(vl_convert, version), _part("page.js")
    sizes = max((len(team.members) for team in shown.teams.shown), default=1) if shown.teams else 1
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    escaped = markupsafe.Markup
    return environment.from_string(_part("page.html.jinja")).render(
        facts=shown,
        headline=sentences.headline(shown),
        headline_parts=[*re.split(r"(\([^()]*interval[^()]*\))", sentences.headline(shown))],
        figures=_figures(shown),
        sections=sections,
        cases_lead="" if shown.cases is None else _cases_lead(shown),
        cases_table=None if shown.cases is None else _cases_table(shown),
        case_tasks=[] if shown.cases is None else sorted({case.task for case in shown.cases.shown}),
        manifest=_manifest(shown.manifest),
        run_lead=_run_lead(shown),
        # No text may end the element that it stands in.
        charts=escaped(_json({panel["id"]: panel["spec"] for panel in panels})),
        library=escaped(_inert(library)),
        script=escaped(_inert(script)),
        style=escaped(_size_colours(sizes) + _part("page.css")),
        policy="; ".join(
            (
                "default-src 'none'",
                f"script-src {_digest(_inert(library))} {_digest(_inert(script))}",
                "style-src 'unsafe-inline'",
                "img-src data:",
                "base-uri 'none'",
                "form-action 'none'",
            )
        ),
    )


# ---- what is in the page


def _library(vl_convert: Any, version: str) -> str:
    """Take Vega's scripts for a version of Vega-Lite; an HTML file has one kind of line end."""
    bundle: str = vl_convert.javascript_bundle(vl_version=version)
    return bundle.replace("\r", "")


def _part(name: str) -> str:
    return files("langchain_rlfocal.reporting").joinpath(name).read_text(encoding="utf-8")


def _inert(script: str) -> str:
    """Write a script so that nothing in its texts ends or comments out its element."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _json(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _digest(script: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(script.encode('utf-8')).digest()).decode()}'"


def _size_colours(sizes: int) -> str:
    from langchain_rlfocal.reporting.charts import size_colours  # noqa: PLC0415  # it needs Altair

    def rule(ends: tuple[str, str]) -> str:
        colours = size_colours(sizes, low=ends[0], high=ends[1])
        return ":root { " + " ".join(f"--size-{n}: {colour};" for n, colour in enumerate(colours, start=1)) + " }\n"

    return f"{rule(_LIGHT_SIZES)}@media (prefers-color-scheme: dark) {{ {rule(_DARK_SIZES)}}}\n"


def _shown(facts: Facts) -> Facts:
    """Make the names of members and tasks short, still different from each other, and every text fit for a page."""
    names: dict[str, str] = {}
    known = [*facts.asking.members, *facts.asking.never, *facts.per_task, *(task for task, _ in facts.asking.tasks)]
    for name in known:
        short = (
            name
            if len(name) <= MAX_NAME
            else f"{name[: MAX_NAME - 9]}… {hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:7]}"
        )
        names[name] = Text.cut(short, most=MAX_NAME).text

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return names.get(value) or Text.cut(value, most=4000).text
        if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **{field.name: walk(getattr(value, field.name)) for field in fields(value)})
        if isinstance(value, Mapping):
            return {walk(key): walk(each) for key, each in value.items()}
        return tuple(walk(each) for each in value) if isinstance(value, list | tuple) else value

    walked: Facts = walk(facts)
    return walked


def _figures(facts: Facts) -> list[dict[str, str]]:
    ways = {way.name: way for way in facts.ways}
    policy = ways["policy"]

    def of_score(label: str, name: str) -> dict[str, str]:
        score = ways[name].score
        return {
            "label": label,
            "value": percent(score.mean),
            "note": f"{100 * score.low:.1f} to {100 * score.high:.1f}",
        }

    found = [of_score("RL-Focal scores", "policy")]
    if "single_best" in ways:
        found.append(of_score("Best single member", "single_best"))
    if facts.comparison is not None:
        found.append(_spent_figure(facts, facts.comparison))
    found.append(
        {
            "label": "Members asked",
            "value": f"{policy.spending['calls'] or 0:.2f}",
            "note": f"a question, of {len(facts.asking.members) + len(facts.asking.never)}",
        }
    )
    found.append({"label": "Questions", "value": f"{policy.n:,}", "note": "scored, " + _rows_note(facts)})
    return found


def _spent_figure(facts: Facts, compared: Comparison) -> dict[str, str]:
    if facts.unit == "calls" or facts.unit not in compared.spent:
        latency = next(way.latency_s for way in facts.ways if way.role == "policy")
        if latency is None:
            return {"label": "Cost in dollars", "value": "unknown", "note": "no prices on record"}
        return {"label": "A question waits", "value": f"{latency:.2f} s", "note": "on average, as recorded"}
    spent = compared.spent[facts.unit]
    what = "for 1,000 questions" if facts.unit == "usd" else "tokens a question"
    return {
        "label": "It takes",
        "value": amount(spent.policy, facts.unit),
        "note": f"{what}; single best {amount(spent.best, facts.unit)}",
    }


def _rows_note(facts: Facts) -> str:
    return "perhaps seen in training" if facts.knows_rows else "unseen in training"


def _sections(facts: Facts) -> list[dict[str, Any]]:
    from langchain_rlfocal.reporting import charts  # noqa: PLC0415  # it needs Altair

    sections: list[dict[str, Any]] = [
        {
            "id": "spending",
            "title": "Score against cost",
            "lead": "Up is better, left is cheaper. The line is what the policy can do at other cost weights; dashed lines are its "
            "cost-aware rivals. Lines are the upper hulls of figures on these very questions, which flatters all of them alike.",
            "choice": "Count",
            "panels": [
                {
                    "id": f"spending-{unit}",
                    "label": sentences.UNITS[unit],
                    "spec": charts.spending_chart(facts.ways, facts.curves.get(unit), unit),
                    "says": sentences.of_spending(facts.ways, facts.curves.get(unit), unit),
                    "table": _ways_table(facts, unit),
                    "is_hidden": unit != facts.unit,
                }
                for unit in facts.units
            ],
            "tables": [_tasks_table(facts), *_rival_tables(facts)],
        },
        _asking_section(facts),
        {
            "id": "calibration",
            "title": "Can its confidence be believed?",
            "lead": "Each point is the questions of one tenth of confidence; the figure above it is how many they are. On the dashed "
            "line, confidence is right.",
            "panels": [
                {
                    "id": "calibration",
                    "spec": charts.calibration_chart(facts.calibration),
                    "says": sentences.of_calibration(facts.calibration),
                    "table": {
                        "caption": "Confidence, and what answers were worth",
                        "head": ["confidence", "mean", "score", "95%", "questions"],
                        "rows": [
                            [
                                f"{one.low:.1f} to {one.high:.1f}",
                                percent(one.confidence),
                                percent(one.score.mean),
                                f"{100 * one.score.low:.1f} to {100 * one.score.high:.1f}",
                                f"{one.n:,}",
                            ]
                            for one in facts.calibration.bins
                        ],
                    },
                    "is_hidden": False,
                }
            ],
        },
    ]
    if facts.teams is not None:
        teams = facts.teams
        largest = max((n for n, share in enumerate(facts.asking.team_sizes, start=1) if share), default=2)
        best = sorted(teams.shown, key=lambda team: -team.accuracy)[:MAX_ROWS]
        left = teams.total - len(teams.shown)
        sections.append(
            {
                "id": "teams",
                "title": "Diversity against accuracy",
                "lead": "Every team that the pool could send as a whole, voting by plurality. Focal diversity is how differently its "
                "members fail; compare teams of one size, since larger ones are more diverse by that alone.",
                "panels": [
                    {
                        "id": "teams",
                        "spec": charts.teams_chart(teams),
                        "says": sentences.of_teams(teams, size=largest),
                        "table": {
                            "caption": f"The {len(best)} most accurate teams",
                            "head": ["members", "accuracy", "focal diversity", "size"],
                            "rows": [
                                [
                                    ", ".join(team.members),
                                    percent(team.accuracy),
                                    f"{team.focal:.3f}",
                                    str(len(team.members)),
                                ]
                                for team in best
                            ],
                        },
                        "is_hidden": False,
                    }
                ],
                "after": f"On {teams.questions:,} questions that all members were scored on. These teams are chosen on the questions that "
                "measure them: confirm a choice on others."
                + (f" {left:,} teams of {teams.total:,} are not drawn." if left else ""),
            }
        )
    sections.append(_training_section(facts.training))
    return sections


def _asking_section(facts: Facts) -> dict[str, Any]:
    from langchain_rlfocal.reporting import charts  # noqa: PLC0415  # it needs Altair

    asking, views = (
        facts.asking,
        {
            "any": ("In any round", facts.asking.ever, "asked in any round"),
            "first": ("In the first round", facts.asking.first, "asked in the first round"),
            "returned": ("Its answer is returned", facts.asking.returned, "its answer is returned"),
        },
    )
    return {
        "id": "asking",
        "title": "Who is asked for what",
        "lead": "Share of a task's questions on which each member is asked. A full cell is every question of that task.",
        "choice": "Show who is asked",
        "panels": [
            {
                "id": f"asking-{key}",
                "label": label,
                "spec": charts.asking_chart(asking, shares, title),
                "says": sentences.of_asking(asking),
                "table": _asking_table(asking, shares, title),
                "is_hidden": key != "any",
            }
            for key, (label, shares, title) in views.items()
        ],
    }


def _training_section(training: Training | None) -> dict[str, Any]:
    from langchain_rlfocal.reporting import charts  # noqa: PLC0415  # it needs Altair

    section: dict[str, Any] = {"id": "training", "title": "How it learned", "is_grid": True}
    if training is None:
        section["panels"] = []
        section["lead"] = (
            f"No curves: there is no {METRICS} of the training beside the checkpoint. rlfocal train writes it; train again, or keep the "
            "file beside the checkpoint that it belongs to."
        )
        return section
    ranked = [name for name in sentences.METRICS if name in training.metrics]
    ranked += [name for name in training.metrics if name not in ranked]

    def panel(name: str) -> dict[str, Any]:
        values = [
            (at, value) for at, value in zip(training.steps, training.metrics[name], strict=True) if value is not None
        ]
        stride = -(-len(values) // MAX_ROWS)
        title, _, meaning = sentences.METRICS.get(name, name).partition(": ")
        return {
            "id": f"training-{ranked.index(name)}",
            "label": title,
            "meaning": meaning,
            "spec": charts.training_chart(training, name),
            "says": sentences.of_training(training, name),
            "table": {
                "caption": name,
                "head": ["iteration", name],
                "rows": [[f"{at:g}", f"{value:.4g}"] for at, value in values[::stride]],
            },
            "is_hidden": False,
        }

    main = [name for name in ranked if name in MAIN_METRICS] or ranked[: len(MAIN_METRICS)]
    section["panels"] = [panel(name) for name in main]
    section["more"] = [panel(name) for name in ranked if name not in main]
    section["lead"] = f"{training.total:,} iterations of reinforcement learning." + (
        ""
        if training.best is None
        else f" The policy of iteration {training.best:g}, the dashed line, was kept: it was best on validation rows."
    )
    return section


# ---- tables


def _interval(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _ways_table(facts: Facts, unit: Any) -> Table:
    rows = []
    for way in facts.ways:
        spent, difference = way.spending[unit], way.difference
        rows.append(
            [
                name_of(way.name),
                percent(way.score.mean),
                _interval(way.score.low, way.score.high),
                "unknown" if spent is None else amount(spent, unit),
                ""
                if difference is None
                else f"{points(difference.mean)} ({points(difference.low)} to {points(difference.high)})",
                "unknown" if way.latency_s is None else f"{way.latency_s:.2f}",
                f"{way.n:,}",
            ]
        )
    return {
        "caption": "Every way of answering",
        "head": [
            "",
            "score",
            "95%",
            sentences.AXES[unit],
            "RL-Focal minus this, points (95%)",
            "seconds",
            "questions",
        ],
        "rows": rows,
    }


def _rival_tables(facts: Facts) -> list[Table]:
    tables = []
    for unit, curves in facts.curves.items():
        rows = [["RL-Focal", percent(curves.quality["policy"]), ""]]
        for name in curves.rivals:
            one = curves.differences[name]
            rows.append(
                [
                    name_of(name),
                    percent(curves.quality[name]),
                    f"{points(one.mean)} ({points(one.low)} to {points(one.high)})",
                ]
            )
        tables.append(
            {
                "caption": f"Mean score over spending, {amount(curves.low, unit)} to {amount(curves.high, unit)} "
                + ("for 1,000 questions" if unit == "usd" else f"{unit} a question"),
                "head": ["", "mean score", "RL-Focal minus this, points (95%)"],
                "rows": rows,
            }
        )
    return tables


def _tasks_table(facts: Facts) -> Table:
    ways = [
        way.name
        for way in facts.ways
        if way.name in ("policy", "single_best", "plurality", "supervised_fusion", "oracle")
    ]
    tasks = sorted(facts.per_task, key=lambda task: -(facts.per_task[task]["n"] or 0))[:MAX_ROWS]
    left = len(facts.per_task) - len(tasks)

    def shown(value: float | None) -> str:
        return "unknown" if value is None else percent(value)

    return {
        "caption": "Score on each task" + (f", without {left:,} of fewer questions" if left else ""),
        "head": ["task", "questions", *(name_of(name) for name in ways)],
        "rows": [
            [task, f"{facts.per_task[task]['n']:,.0f}", *(shown(facts.per_task[task].get(name)) for name in ways)]
            for task in sorted(tasks)
        ],
    }


def _asking_table(asking: Asking, shares: Sequence[Sequence[float]], title: str) -> Table:
    return {
        "caption": f"Share of questions: {title}",
        "head": ["task", "questions", *asking.members],
        "rows": [
            [task, f"{n:,}", *(f"{share:.0%}" for share in row)]
            for (task, n), row in zip(asking.tasks, shares, strict=True)
        ],
    }


def _cases_lead(facts: Facts) -> str:
    assert facts.cases is not None
    cases = facts.cases
    helped, hurt = (sum(cases.counts[effect].values()) for effect in ("helped", "hurt"))
    said = (
        f"Beside {cases.best}, the best single member: on {helped:,} of {cases.n:,} questions the returned answer scored more, on {hurt:,} less, "
        f"on {cases.n - helped - hurt:,} the same. By fusion: several members were asked. By selection: one other member was."
    )
    if cases.shown:
        said += f" Below are {len(cases.shown):,} of them, spread over the tasks."
    return said


def _cases_table(facts: Facts) -> Table:
    assert facts.cases is not None
    cases = facts.cases
    rows = [
        [
            f"{effect} by {cause}",
            f"{count:,}",
            f"{count / cases.n:.1%}",
            f"{cases.gains[effect][cause]:+,.1f}".replace("-", "−"),
        ]
        for effect, causes in cases.counts.items()
        for cause, count in causes.items()
    ]
    return {
        "caption": "Questions on which it differs",
        "head": ["", "questions", "of all", "score gained"],
        "rows": rows,
    }


# ---- the manifest


def _run_lead(facts: Facts) -> str:
    if not facts.knows_rows:
        return (
            "All figures above are of test rows alone, which neither the policy nor the baselines have seen; the curves of the training "
            "are of training and validation rows."
        )
    return (
        "Among the rows of this report are others than the training's test rows: the policy may have learned from them."
    )


def _manifest(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Lay out a manifest: an object is a part of its own, a list one line."""
    parts: list[dict[str, Any]] = [{"title": "This report", "rows": []}]
    for name, value in manifest.items():
        if isinstance(value, Mapping):
            rows = [(key.replace("_", " "), _written(each)) for key, each in list(value.items())[:MAX_FACTS]]
            parts.append({"title": name[:1].upper() + name[1:], "rows": rows})
        else:
            parts[0]["rows"].append((name.replace("_", " "), _written(value)))
    return [part for part in parts if part["rows"]]


def _written(value: Any) -> str:
    text = _plain(value)
    return text if len(text) <= MAX_FACT else f"{text[: MAX_FACT - 1]}…"


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value[:MAX_FACTS]))
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(each)}" for key, each in list(value.items())[:MAX_FACTS])
    return str(value)
