"""Charts: a report's figures as Vega-Lite, made and checked by Altair.

Colours are CSS variables of the page (`var(--accent)`), so that light, dark and print need no other chart. A chart is as wide as its
place. It says nothing that is not in the data table beside it.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import altair as alt

from langchain_rlfocal.evaluation.rivals import SpendingUnit
from langchain_rlfocal.reporting.facts import Asking, Calibration, CurvePoint, Curves, Teams, Training, Way
from langchain_rlfocal.reporting.sentences import AXES, name_of

ACCENT, HEAT, INK, MUTED, FAINT, GROUND = (
    f"var(--{name})" for name in ("accent", "heat", "ink", "muted", "line", "ground")
)

PRIORITY = ("policy", "single_best", "oracle")
"""Points that have a label however narrow the page is."""

Spec = dict[str, Any]

# The page's own size of type, and about how wide a character of it is.
_FONT, _TYPE, _CHARACTER = "system-ui, sans-serif", 12, 6.3
_WIDTH, _HEIGHT = 720, 380
"""What labels are placed for, in pixels."""


def spending_chart(ways: Sequence[Way], curves: Curves | None, unit: SpendingUnit) -> Spec:
    """Draw score over spending: the policy's curve and its rivals', the policy, the baselines and the Oracle."""
    scale = 1000 if unit == "usd" else 1
    points: list[dict[str, Any]] = [
        {
            "name": name_of(way.name),
            "role": way.role,
            "x": scale * spent,
            "y": way.score.mean,
            "low": way.score.low,
            "high": way.score.high,
            "n": way.n,
            "is_major": way.name in PRIORITY,
        }
        for way in ways
        if (spent := way.spending[unit]) is not None
    ]
    hulls = {} if curves is None else {"policy": curves.policy, **curves.rivals}
    xs = [point["x"] for point in points] + [scale * p.spending for hull in hulls.values() for p in hull]
    low, high = min(xs), max(xs)
    is_log = low > 0 and high / low > 12
    lines: list[dict[str, Any]] = [
        {"name": name_of(name), "order": order, "x": scale * x, "y": y}
        for name, hull in hulls.items()
        for order, (x, y) in enumerate(_polyline(hull))
    ]
    ys = [point["y"] for point in points if point["role"] != "bound"] + [line["y"] for line in lines]
    bottom, top = max(min(ys) - 0.04, 0.0), min(max(ys) + 0.05, 1.0)
    # A bound far above all others would leave them no room: it is named at the upper edge.
    beyond = [point for point in points if point["role"] == "bound" and point["y"] > top]
    points = [point for point in points if point not in beyond]
    domain = _domain(low, high, is_log=is_log)
    x = (
        alt.X("x:Q")
        .title(AXES[unit])
        .scale(type="log" if is_log else "linear", domain=domain, nice=False)
        .axis(tickCount=6, grid=False)
    )
    y = (
        alt.Y("y:Q")
        .title("score")
        .axis(format=".0%", tickCount=6, domain=False, ticks=False)
        .scale(domain=[bottom, top], nice=False)
    )
    layers: list[Any] = []
    if lines:
        of_rivals = [line for line in lines if line["name"] != name_of("policy")]
        tooltip = [alt.Tooltip("name:N").title("frontier")]
        base = alt.Chart(_data(of_rivals)).encode(
            x,
            y,
            detail="name:N",
            order="order:Q",
            strokeDash=alt.StrokeDash("name:N").scale(range=[[7, 3], [2, 2], [9, 3, 2, 3]]).legend(None),
            tooltip=tooltip,
        )
        layers.append(base.mark_line(color=MUTED, strokeWidth=1.2, opacity=0.75, clip=True))
        own = [line for line in lines if line["name"] == name_of("policy")]
        layers.append(
            alt.Chart(_data(own)).encode(x, y, order="order:Q").mark_line(color=ACCENT, strokeWidth=2.5, clip=True)
        )
    tooltip = [
        alt.Tooltip("name:N").title("way"),
        alt.Tooltip("y:Q").title("score").format(".1%"),
        alt.Tooltip("low:Q").title("95% from").format(".1%"),
        alt.Tooltip("high:Q").title("to").format(".1%"),
        alt.Tooltip("x:Q").title(AXES[unit]).format(",.4~g"),
        alt.Tooltip("n:Q").title("questions"),
    ]
    policy = [point for point in points if point["role"] == "policy"]
    layers.append(
        alt.Chart(_data(policy))
        .encode(x, alt.Y("low:Q"), y2="high:Q")
        .mark_rule(color=ACCENT, strokeWidth=1.5, clip=True)
    )
    marks: tuple[tuple[str, dict[str, Any]], ...] = (
        ("baseline", {"color": MUTED, "size": 55, "opacity": 1}),
        ("bound", {"color": INK, "size": 60, "filled": False, "strokeWidth": 1.6, "opacity": 1}),
        ("policy", {"color": ACCENT, "size": 150, "opacity": 1}),
    )
    for role, mark in marks:
        of_role = [point for point in points if point["role"] == role]
        layers.append(alt.Chart(_data(of_role)).encode(x, y, tooltip=tooltip).mark_point(**{"filled": True, **mark}))
    ends = [
        {"name": name_of(name), "x": scale * hull[-1].spending, "y": hull[-1].score, "role": "rival", "is_major": False}
        for name, hull in hulls.items()
        if hull and name != "policy"
    ]
    for bound in beyond:
        said = {"x": bound["x"], "y": top, "name": f"{bound['name']} {bound['y']:.1%} ↑"}
        layers.append(
            alt.Chart(_data([said]))
            .encode(x, y, text="name:N")
            .mark_text(color=MUTED, align="right", baseline="top", dx=14, dy=2, fontSize=_TYPE)
        )
    obstacles = [(line["x"], line["y"]) for line in lines]
    obstacles += [
        (point["x"], point["low"] + (point["high"] - point["low"]) * step / 20)
        for point in policy
        for step in range(21)
    ]
    labels = _placed([*points, *ends], obstacles, domain=domain, span=(bottom, top), is_log=is_log)
    for place, (dx, dy, align) in _PLACES.items():
        for is_policy in (True, False):
            here = [one for one in labels if one["place"] == place and (one["role"] == "policy") == is_policy]
            if not here:
                continue
            style: dict[str, Any] = {
                "color": ACCENT if is_policy else MUTED,
                "fontWeight": 600 if is_policy else 400,
                "fontSize": _TYPE,
            }
            layers.append(
                alt.Chart(_data(here))
                .encode(
                    x,
                    y,
                    text="name:N",
                    # On a phone only the points that a reader looks for have room for a name.
                    opacity=alt.condition("datum.is_major || width > 520", alt.value(1), alt.value(0)),
                )
                .mark_text(dx=dx, dy=dy, align=align, baseline="middle", **style)
            )
    return _finished(alt.layer(*layers), height=_HEIGHT)


def asking_chart(asking: Asking, shares: Sequence[Sequence[float]], title: str) -> Spec:
    """Draw a share for each task and member, as a heat map."""
    # Where all tasks are of one benchmark, its name says nothing here.
    names = [task for task, _ in asking.tasks]
    is_one = len({task.partition("/")[0] for task in names}) == 1 < len(names) and all("/" in task for task in names)
    shown = {task: task.partition("/")[2] if is_one else task for task in names}
    cells = [
        {"task": shown[task], "n": n, "member": member, "share": share}
        for (task, n), row in zip(asking.tasks, shares, strict=True)
        for member, share in zip(asking.members, row, strict=True)
    ]
    has_room = len(asking.members) <= 12
    x = (
        alt.X("member:N")
        .sort(list(asking.members))
        .title(None)
        .axis(orient="top", labelAngle=-40, labelLimit=150, labelAlign="left", domain=False, ticks=False)
    )
    y = alt.Y("task:N").sort(list(shown.values())).title(None).axis(labelLimit=130, domain=False, ticks=False)
    base = alt.Chart(_data(cells)).encode(x, y)
    tooltip = [
        alt.Tooltip("task:N"),
        alt.Tooltip("member:N"),
        alt.Tooltip("share:Q").title(title).format(".1%"),
        alt.Tooltip("n:Q").title("questions of the task"),
    ]
    shade = alt.FillOpacity("share:Q").scale(domain=[0, 1], range=[0.04, 0.72]).legend(None)
    layers: list[Any] = [
        base.encode(shade, tooltip=tooltip).mark_rect(fill=HEAT, stroke=GROUND, strokeWidth=2, cornerRadius=3)
    ]
    if has_room:
        has_width = alt.condition(f"width / {len(asking.members)} > 34", alt.value(1), alt.value(0))
        text = base.encode(alt.Text("share:Q").format(".0%"), opacity=has_width)
        text = text.transform_filter("datum.share >= 0.005")
        layers.append(text.mark_text(fontSize=11, color=INK))
    return _finished(alt.layer(*layers), height=26 * len(asking.tasks), right=48)


def calibration_chart(calibration: Calibration) -> Spec:
    """Draw a reliability diagram: what answers were worth over the confidence in them, and how many there were."""
    bins = [
        {
            "confidence": each.confidence,
            "score": each.score.mean,
            "low": each.score.low,
            "high": each.score.high,
            "n": each.n,
            "share": each.share,
            "count": f"{each.n:,}",
        }
        for each in calibration.bins
    ]
    x = (
        alt.X("confidence:Q")
        .title("confidence in the answer")
        .scale(domain=[0, 1.03], nice=False)
        .axis(format=".0%", values=[0, 0.2, 0.4, 0.6, 0.8, 1], grid=False)
    )
    y = (
        alt.Y("score:Q")
        .title("what it was worth")
        .scale(domain=[0, 1.06], nice=False)
        .axis(format="%", values=[0, 0.2, 0.4, 0.6, 0.8, 1])
    )
    tooltip = [
        alt.Tooltip("confidence:Q").title("mean confidence").format(".1%"),
        alt.Tooltip("score:Q").title("mean score").format(".1%"),
        alt.Tooltip("low:Q").title("95% from").format(".1%"),
        alt.Tooltip("high:Q").title("to").format(".1%"),
        alt.Tooltip("n:Q").title("questions").format(","),
    ]
    ideal = alt.Chart(_data([{"confidence": 0, "score": 0}, {"confidence": 1, "score": 1}])).encode(x, y)
    base = alt.Chart(_data(bins)).encode(x)
    said = [{"confidence": 0.2, "score": 0.2, "text": "as sure as right"}]
    return _finished(
        alt.layer(
            ideal.mark_line(color=MUTED, strokeDash=[4, 4], strokeWidth=1.2),
            alt.Chart(_data(said))
            .encode(x, y, text="text:N")
            .mark_text(color=MUTED, align="left", dx=10, dy=6, fontSize=_TYPE),
            base.encode(alt.Y("low:Q"), y2="high:Q").mark_rule(color=ACCENT, strokeWidth=1.5),
            base.encode(
                y, alt.Size("share:Q").scale(type="sqrt", domain=[0, 1], range=[30, 420]).legend(None), tooltip=tooltip
            ).mark_point(color=ACCENT, filled=True, opacity=1),
            base.encode(alt.Y("high:Q"), text="count:N").mark_text(color=MUTED, dy=-13, fontSize=11),
        ),
        height=340,
    )


def teams_chart(teams: Teams) -> Spec:
    """Draw accuracy over focal diversity, a point for each team, coloured by its size."""
    alone = [team for team in teams.shown if len(team.members) == 1]
    # A team of one has no diversity; its accuracy is what the others have to beat.
    together = [team for team in teams.shown if len(team.members) > 1] or alone
    sizes = sorted({len(team.members) for team in together})
    rows: list[dict[str, Any]] = [
        {
            "focal": team.focal,
            "accuracy": team.accuracy,
            "size": len(team.members),
            "members": ", ".join(team.members),
        }
        for team in together
    ]
    colour = (
        alt.Color("size:O")
        .scale(domain=sizes, range=[f"var(--size-{size})" for size in sizes])
        .legend(title="members", orient="top", direction="horizontal", symbolOpacity=1)
    )
    tooltip = [
        alt.Tooltip("members:N"),
        alt.Tooltip("accuracy:Q").title("accuracy of their vote").format(".1%"),
        alt.Tooltip("focal:Q").title("focal diversity").format(".3f"),
    ]
    best = max(rows, key=lambda row: row["accuracy"])
    base = alt.Chart(_data(rows)).encode(
        alt.X("focal:Q")
        .title("focal diversity of the team")
        .axis(grid=False, tickCount=6)
        .scale(zero=False, nice=True, padding=8),
        alt.Y("accuracy:Q")
        .title("accuracy of its plurality vote")
        .axis(format=".0%", tickCount=6)
        .scale(zero=False, nice=True),
    )
    ring = alt.Chart(_data([best])).encode(alt.X("focal:Q"), alt.Y("accuracy:Q"))
    single = max(alone, key=lambda team: team.accuracy, default=None)
    said = (
        [] if single is None else [{"accuracy": single.accuracy, "text": f"best member alone, {single.accuracy:.1%}"}]
    )
    line = alt.Chart(_data(said)).encode(alt.Y("accuracy:Q"))
    return _finished(
        alt.layer(
            base.encode(colour, tooltip=tooltip).mark_point(
                filled=True, size=38 if len(rows) < 400 else 16, opacity=0.85
            ),
            line.mark_rule(color=MUTED, strokeDash=[4, 4]),
            line.encode(text="text:N").mark_text(
                x=4, align="left", baseline="bottom", dy=-3, color=MUTED, fontSize=_TYPE
            ),
            ring.mark_point(filled=False, size=140, color=INK, strokeWidth=1.4, opacity=1),
            ring.mark_text(text="most accurate", color=INK, dy=-14, fontSize=_TYPE, align="center"),
        ),
        height=360,
    )


def training_chart(training: Training, name: str) -> Spec:
    """Draw one metric over the steps of training, and where the policy was taken that was kept."""
    rows = [
        {"step": step, "value": value}
        for step, value in zip(training.steps, training.metrics[name], strict=True)
        if value is not None
    ]
    x = alt.X("step:Q").title("iteration").scale(nice=False).axis(tickCount=5, format="~s", grid=False)
    y = alt.Y("value:Q").title(None).scale(zero=False).axis(tickCount=4, format="~g")
    tooltip = [alt.Tooltip("step:Q").title("iteration"), alt.Tooltip("value:Q").title(name).format(".4~g")]
    base = alt.Chart(_data(rows)).encode(x, y)
    layers: list[Any] = [base.mark_line(color=ACCENT, strokeWidth=1.8)]
    if training.best is not None:
        kept = alt.Chart(_data([{"step": training.best}])).encode(alt.X("step:Q"))
        layers.append(kept.mark_rule(color=MUTED, strokeDash=[3, 3]))
    layers.append(base.encode(tooltip=tooltip).mark_point(color=ACCENT, filled=True, size=14, opacity=1))
    return _finished(alt.layer(*layers), height=130)


def size_colours(sizes: int, *, low: str, high: str) -> list[str]:
    """Mix as many colours as there are sizes of teams, from `low` to `high`, as `#rrggbb`."""
    first, last = (tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5)) for colour in (low, high))
    shares = [index / max(sizes - 1, 1) for index in range(sizes)]
    return [
        "#" + "".join(f"{round(one + (two - one) * share):02x}" for one, two in zip(first, last, strict=True))
        for share in shares
    ]


# ---- parts


def _data(rows: Sequence[Mapping[str, Any]]) -> alt.InlineData:
    """Hold values in the chart, floats to six digits: more cannot be seen."""
    return alt.InlineData(
        values=[
            {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in row.items()}
            for row in rows
        ]
    )


def _finished(chart: Any, *, height: int, right: int = 6) -> Spec:
    spec: Spec = (
        chart.properties(width="container", height=height, background="transparent")
        .configure(font=_FONT, aria=False, padding={"left": 2, "right": right, "top": 6, "bottom": 4})
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=MUTED,
            titleColor=MUTED,
            gridColor=FAINT,
            domainColor=FAINT,
            tickColor=FAINT,
            labelFontSize=_TYPE,
            titleFontSize=_TYPE,
            titleFontWeight="normal",
            titlePadding=8,
            labelPadding=5,
        )
        .configure_legend(
            labelColor=MUTED, titleColor=MUTED, labelFontSize=_TYPE, titleFontSize=_TYPE, titleFontWeight="normal"
        )
        .to_dict()
    )
    spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    return spec


def _polyline(hull: Sequence[CurvePoint]) -> list[tuple[float, float]]:
    """Lay points on the lines of a hull, so that they are right on a logarithmic axis too."""
    corners = [(point.spending, point.score) for point in hull]
    line = corners[:1]
    for (x0, y0), (x1, y1) in itertools.pairwise(corners):
        line += [(x0 + (x1 - x0) * step / 12, y0 + (y1 - y0) * step / 12) for step in range(1, 13)]
    return line


def _domain(low: float, high: float, *, is_log: bool) -> list[float]:
    if is_log:
        return [low / 1.25, high * 1.25]
    return [0.0, high * 1.06]


_PLACES: dict[str, tuple[int, int, Literal["left", "center", "right"]]] = {
    "right": (10, 0, "left"),
    "left": (-10, 0, "right"),
    "above": (0, -15, "center"),
    "below": (0, 15, "center"),
    "above right": (9, -13, "left"),
    "below right": (9, 13, "left"),
    "above left": (-9, -13, "right"),
    "below left": (-9, 13, "right"),
}
"""Where a label stands beside its point: by how many pixels to the right and down, and how it is aligned."""


def _placed(
    points: Sequence[Mapping[str, Any]],
    obstacles: Sequence[tuple[float, float]],
    *,
    domain: Sequence[float],
    span: tuple[float, float],
    is_log: bool,
) -> list[dict[str, Any]]:
    """Find a place for each label that covers no point, line or other label; who finds none goes without, but the first."""

    def at(x: float, y: float) -> tuple[float, float]:
        low, high, place = (math.log(value) if is_log else value for value in (*domain, x))
        return (place - low) / (high - low) * _WIDTH, (span[1] - y) / max(span[1] - span[0], 1e-9) * _HEIGHT

    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in (at(point["x"], point["y"]) for point in points)]
    taken += [(x - 1, y - 1, x + 1, y + 1) for x, y in (at(*one) for one in obstacles)]
    found = []
    for point in sorted(points, key=lambda one: (one["role"] != "policy", not one["is_major"])):
        x, y = at(point["x"], point["y"])
        wide = _CHARACTER * len(point["name"])
        boxes = {}
        for place, (dx, dy, align) in _PLACES.items():
            left = x + dx - {"left": 0.0, "center": wide / 2, "right": wide}[align]
            boxes[place] = (left, y + dy - 7, left + wide, y + dy + 7)
        free = (
            name
            for name, box in boxes.items()
            if box[0] >= 0 and box[2] <= _WIDTH and box[1] >= 0 and box[3] <= _HEIGHT
            if not any(_meet(box, other) for other in taken)
        )
        chosen = next(free, ("left" if x > _WIDTH / 2 else "right") if point["is_major"] else None)
        if chosen is not None:
            taken.append(boxes[chosen])
            found.append({**point, "place": chosen})
    return found


def _meet(one: tuple[float, ...], two: tuple[float, ...]) -> bool:
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]
