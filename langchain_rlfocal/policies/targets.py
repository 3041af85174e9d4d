"""Targets: what a query may take on average, in calls, dollars, tokens or seconds, and how a policy is run to take it.

A policy can be run at many operating points: at each cost weight, with a team of one, or with one member alone. What each takes,
and what its answers score, is measured in training: that is the curve in a policy's card. Between two neighbouring cost
weights whole tasks may change sides, so that what lies between is reached by neither; a mixture of two points reaches it: a hash
of the query says which of them answers, so that the same query is answered by the same one. Of all mixtures those on the upper
concave hull of the curve score highest for what they take.

Other queries than those that were measured take more or less. A `TargetController` counts what was really taken and aims lower
or higher, in bounds.
"""

import bisect
import hashlib
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from langchain_rlfocal.errors import InputError

Unit = Literal["calls", "usd", "tokens", "seconds"]
"""What a query takes is counted in: members asked; dollars; tokens, of prompts and responses; or seconds until its answer."""

UNITS: tuple[Unit, ...] = ("calls", "usd", "tokens", "seconds")

HORIZONS = (5.0, 50.0)
"""Over how many queries a controller makes up for what was taken too much or too little: at first, and at most."""

QUERIES_EACH = 20
"""With how many queries that number rises by one: of few queries, each counts for more of the mean."""

MEMORY = 1000
"""How many queries a controller remembers in measuring how far queries are from what the curve says."""

PRIOR_QUERIES = 10.0
"""How many queries as the curve says they are it has seen before the first."""

MOST_BALANCE = 50.0
"""What is made up for at most, in amounts; what more was missed is forgotten."""

MOST_OFF = 5.0
"""It corrects at most by this factor."""

MAX_CONTROLLERS = 64
"""Targets whose controllers are remembered."""

TARGETS = ("target_calls", "target_usd", "target_usd_share", "target_tokens", "target_seconds")
"""How callers name targets; `target_usd_share` is in dollars of the member that is best alone."""


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """How a policy is run.

    Attributes:
        cost_weight: What asking the whole pool once is worth, in units of score.
        max_team: How many members may be asked, fewer than the caller allows; None leaves it to the caller.
        member: The member that is asked alone; others only where it fails. None leaves it to the policy.
    """

    cost_weight: float
    max_team: int | None = None
    member: str | None = None

    @property
    def largest_team(self) -> int | None:
        """How many members may be asked as long as none fails; None leaves it to the caller."""
        return self.max_team if self.member is None else 1


@dataclass(frozen=True, slots=True)
class Mixture:
    """Two operating points, of which a hash of the query chooses.

    Attributes:
        low: The one that takes less.
        high: The one that takes more.
        share: Share of the queries that the second answers, in [0, 1].
        low_takes: What a query takes at the first.
        high_takes: And at the second.
    """

    low: OperatingPoint
    high: OperatingPoint
    share: float
    low_takes: float
    high_takes: float

    @property
    def expected(self) -> float:
        """What a query takes on average."""
        return self.low_takes + self.share * (self.high_takes - self.low_takes)

    def point_for(self, position: float) -> OperatingPoint:
        """Choose for a query at this position; see `position_of`."""
        return self.high if position < self.share else self.low

    def takes_at(self, position: float) -> float:
        """Return what a query takes at the point that is chosen for this position."""
        return self.high_takes if position < self.share else self.low_takes


@dataclass(frozen=True, slots=True)
class Target:
    """What a query may take on average.

    Attributes:
        name: One of `TARGETS`.
        value: How much.

    Raises:
        InputError: It is not a finite number above 0; of calls, below 1.
    """

    name: str
    value: float

    def __post_init__(self) -> None:
        value = self.value
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if self.name == "target_calls" and not (is_number and value >= 1):
            raise InputError(f"`target_calls` must be at least 1, got {value!r}. One member is a team.")
        if not (is_number and value > 0):
            raise InputError(f"`{self.name}` must be a finite number above 0, got {value!r}.")

    @property
    def unit(self) -> Unit:
        """What it is counted in."""
        return next(unit for unit in UNITS if self.name.startswith(f"target_{unit}"))

    def __str__(self) -> str:
        """Say it with its unit, for people."""
        words = {
            "target_calls": "{:g} call" if self.value == 1 else "{:g} calls",
            "target_usd": "{:.3g} usd",
            "target_usd_share": "{:.3g} of the single best's usd",
            "target_tokens": "{:g} tokens",
            "target_seconds": "{:.3g} s",
        }
        return words[self.name].format(self.value)


def target_of(given: Mapping[str, float | None]) -> Target | None:
    """Take the one target out of values by name; None where there is none.

    Raises:
        InputError: There are several, or it is out of range.
    """
    named = {name: value for name in TARGETS if (value := given.get(name)) is not None}
    if len(named) > 1:
        listed = " and ".join(f"`{name}={value:g}`" for name, value in named.items())
        raise InputError(f"One target can be kept, got {listed}. Leave all but one out.")
    return next((Target(name, value) for name, value in named.items()), None)


class _Point(BaseModel):
    """A point of a curve as a card holds it: means over the measured queries, None where unknown."""

    model_config = ConfigDict(strict=True, frozen=True)

    cost_weight: float = Field(ge=0, allow_inf_nan=False)
    score: float | None = Field(default=None, allow_inf_nan=False)
    mean_calls: float = Field(ge=0, allow_inf_nan=False)
    mean_usd: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    mean_tokens: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    mean_seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    max_team: int | None = Field(default=None, ge=1)
    member: str | None = None

    @property
    def is_plain(self) -> bool:
        return self.max_team is None and self.member is None

    @property
    def operating_point(self) -> OperatingPoint:
        return OperatingPoint(self.cost_weight, self.max_team, self.member)


class Curve:
    """What each operating point of a policy takes and scores.

    Args:
        points: As a card holds them under `"curve"`: `cost_weight`, `mean_calls` and, as far as they are known, `score`,
            `mean_usd`, `mean_tokens` and `mean_seconds`; `max_team` or `member` where it is not the cost weight alone.

    Raises:
        InputError: There are none, or they are not such points.
    """

    def __init__(self, points: Any) -> None:
        try:
            self._points = [_Point.model_validate(point) for point in points]
        except (ValidationError, TypeError) as error:
            raise _no_curve() from error
        if not any(point.is_plain for point in self._points):
            raise _no_curve()
        self._hulls: dict[tuple[Unit, frozenset[str] | None], tuple[list[float], list[OperatingPoint]]] = {}

    def hull(
        self, unit: Unit, members: frozenset[str] | None = None
    ) -> tuple[Sequence[float], Sequence[OperatingPoint]]:
        """Return what the points of the upper concave hull take, rising, and these points.

        It begins at the point that takes least, and ends at the least cost weight, or at the point of highest score if that takes
        more. Where no score is known, it holds every cost weight, and the rest only at its lower end.

        Args:
            unit: What to count.
            members: Who is in the pool; None for all of the policy's.

        Raises:
            InputError: What a query takes in this unit is not known.
        """
        key = (unit, members)
        if key not in self._hulls:
            self._hulls[key] = self._hull_of(unit, members)
        return self._hulls[key]

    def _hull_of(self, unit: Unit, members: frozenset[str] | None) -> tuple[list[float], list[OperatingPoint]]:
        points = self._points_of(unit, members)
        taken = [getattr(point, f"mean_{unit}") for point in points]
        if None in taken:
            raise InputError(
                f"What a query takes in {unit} must be known to the policy, but was not on record in training. Train it on "
                "outcomes that hold it, or give another target."
            )
        _, free = min((p.cost_weight, x) for x, p in zip(taken, points, strict=True) if p.is_plain)
        scored = [(x, p.score, p.operating_point) for x, p in zip(taken, points, strict=True) if p.score is not None]
        if len(scored) < len(points):
            found = sorted((x, p.cost_weight) for x, p in zip(taken, points, strict=True) if p.is_plain)
            least = min(zip(taken, points, strict=True), key=lambda one: one[0])
            ends = {x: OperatingPoint(weight) for x, weight in found if x > least[0]}
            return [least[0], *ends], [least[1].operating_point, *ends.values()]
        best = max(scored, key=lambda one: (one[1], -one[0]))
        last = max(free, best[0])
        # Of points that take as much, the highest; of equals one of the policy's own, which knows more than one member.
        scored.sort(key=lambda one: (one[0], -one[1], one[2].member or ""))
        hull: list[tuple[float, float, OperatingPoint]] = []
        for point in scored:
            if point[0] > last or (hull and point[0] <= hull[-1][0]):
                continue
            while len(hull) > 1 and _slope(hull[-2], hull[-1]) < _slope(hull[-2], point):
                hull.pop()
            hull.append(point)
        return [x for x, _, _ in hull], [operating for _, _, operating in hull]

    def _points_of(self, unit: Unit, members: frozenset[str] | None) -> list[_Point]:
        """Leave out what cannot be run, or would not take what was measured."""
        points = [p for p in self._points if p.member is None or members is None or p.member in members]
        alone = [x for p in points if p.member is not None and (x := getattr(p, f"mean_{unit}")) is not None]
        if alone and len(points) < len(self._points):
            # Measured with members that are not here: nothing takes less than the cheapest that is.
            points = [p for p in points if (getattr(p, f"mean_{unit}") or 0.0) >= min(alone) or p.cost_weight == 0]
        if unit == "calls" and any(p.operating_point.largest_team == 1 for p in points):
            # Who asked one of every measured query may ask two of another.
            points = [
                p for p in points if p.mean_calls > 1 or p.operating_point.largest_team == 1 or p.cost_weight == 0
            ]
        return points

    def amount(self, target: Target, members: frozenset[str] | None = None) -> float:
        """Turn a target into its unit.

        Raises:
            InputError: It is a share of what is not known, or below what the cheapest operating point takes.
        """
        least = self.hull(target.unit, members)[0][0]
        value = target.value
        if target.name == "target_usd_share":
            alone = [p for p in self._points if p.member is not None and p.score is not None and p.mean_usd is not None]
            if not alone:
                raise InputError(
                    "`target_usd_share` is a share of what the single best member takes, which the policy does not know. Train "
                    "it on outcomes with prices and scores, or give `target_usd`."
                )
            best = max(alone, key=lambda point: point.score or 0.0).mean_usd
            assert best is not None, "as filtered"
            value = value * best
        # What was measured is a sample: calls of one member each may come to a little more than 1.
        if value < least * (1 - 1e-9) and target.name != "target_calls":
            raise InputError(
                f"`{target.name}` must be at least what the cheapest way to answer takes, {least:.3g} {target.unit} a query, got "
                f"{target} ({value:.3g}). Raise it, or add a cheaper member."
            )
        return value

    def mixture(self, unit: Unit, amount: float, members: frozenset[str] | None = None) -> Mixture:
        """Mix two neighbouring points of the hull to take this much; outside of it, the nearest end."""
        taken, points = self.hull(unit, members)
        high = bisect.bisect_left(taken, amount)
        if high == 0 or high == len(taken):
            end = 0 if high == 0 else -1
            return Mixture(points[end], points[end], 0.0, taken[end], taken[end])
        share = (amount - taken[high - 1]) / (taken[high] - taken[high - 1])
        return Mixture(points[high - 1], points[high], share, taken[high - 1], taken[high])


def curve_of(policy: Any) -> Curve:
    """Return a policy's curve.

    Raises:
        InputError: It has none.
    """
    curve: Curve | None = getattr(policy, "curve", None)
    if curve is None:
        raise InputError(
            f"A target needs a trained policy, which knows what each operating point takes; `{policy.policy_id}` is none. "
            "Train a policy, or bound the calls by `max_team`."
        )
    return curve


def _slope(one: tuple[float, float, Any], two: tuple[float, float, Any]) -> float:
    return (two[1] - one[1]) / (two[0] - one[0])


def _no_curve() -> InputError:
    return InputError("The policy must hold a curve of what it takes. Train it again, or give `cost_weight`.")


def position_of(query: str, task: str | None) -> float:
    """Place a query in [0, 1) by a hash of its text and task, the same in every process."""
    said = f"{task or ''}\0{query}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(said, digest_size=8, person=b"rlfocal-target-1").digest()) / 2**64


class TargetController:
    """Keeps what queries take on average at an amount, though they take more or less than the curve says.

    It aims at the amount, and makes up over the next h queries for what was taken beyond or below it. What it asks of the curve is
    that aim over the factor by which queries took more than the curve says (integral control with a feedforward gain):

        aim = (amount + balance / h) / factor        h = queries so far / QUERIES_EACH, within HORIZONS
        balance = Σ (amount - taken), within ± MOST_BALANCE · amount
        factor = (Σ taken + k) / (Σ curve's + k),    k = PRIOR_QUERIES · amount, sums that fade over `MEMORY` queries

    A query counts from when it begins, as what it is expected to take, so that many may be answered at once. One controller may be
    shared by threads.

    Args:
        amount: What a query may take on average, above 0.
    """

    def __init__(self, amount: float) -> None:
        self.amount = amount
        self._balance, self._count = 0.0, 0
        self._taken = self._expected = PRIOR_QUERIES * amount
        self._news = News()
        self._lock = threading.Lock()

    @property
    def aim(self) -> float:
        """What to ask of the curve for the next query."""
        horizon = min(max(self._count / QUERIES_EACH, HORIZONS[0]), HORIZONS[1])
        return max(self.amount + self._balance / horizon, 0.0) / self._factor

    @property
    def _factor(self) -> float:
        return min(max(self._taken / self._expected, 1 / MOST_OFF), MOST_OFF)

    def begin(self, expected: float) -> float:
        """Count a query that begins.

        Args:
            expected: What the curve says that it takes.

        Returns:
            What it is counted as until it ends.
        """
        with self._lock:
            counted = expected * self._factor
            self._count += 1
            self._news.queries += 1
            self._add(self.amount - counted)
        return counted

    def end(self, taken: float, *, expected: float, counted: float) -> None:
        """Count what a query took instead of what it was counted as; of what is not known that stays."""
        if not math.isfinite(taken):
            return
        prior, kept = PRIOR_QUERIES * self.amount, 1 - 1 / MEMORY
        with self._lock:
            self._taken = prior + (self._taken - prior) * kept + taken
            self._expected = prior + (self._expected - prior) * kept + expected
            self._news.ends += 1
            self._news.taken = self._news.taken * kept + taken
            self._news.expected = self._news.expected * kept + expected
            self._add(counted - taken)

    def _add(self, amount: float) -> None:
        most = MOST_BALANCE * self.amount
        self._balance = min(max(self._balance + amount, -most), most)
        self._news.balance += amount

    # ---- with other processes

    def take_news(self) -> "News":
        """Return what was counted since the last time, for other processes."""
        with self._lock:
            news, self._news = self._news, News()
        return news

    def follow(self, balance: float, queries: float, taken: float, expected: float) -> None:
        """Go on from what all processes have counted, and what was counted here since that was asked for."""
        prior = PRIOR_QUERIES * self.amount
        with self._lock:
            news, self._news = self._news, News()
            fading = (1 - 1 / MEMORY) ** news.ends
            self._balance, self._count = balance, int(queries) + news.queries
            self._taken = prior + (taken - prior) * fading + news.taken
            self._expected = prior + (expected - prior) * fading + news.expected
            self._add(news.balance)
            self._news = news


@dataclass(slots=True)
class News:
    """What a controller has counted since it last told other processes.

    Attributes:
        balance: What was taken below the amount.
        queries: How many began.
        ends: How many ended, of which the following are sums that fade with each.
        taken: What they took.
        expected: What the curve says that they take.
    """

    balance: float = 0.0
    queries: int = 0
    ends: int = 0
    taken: float = 0.0
    expected: float = 0.0


@dataclass(frozen=True, slots=True)
class NamedNews:
    """What one of several controllers has counted.

    Attributes:
        name: Which, the same in every process.
        controller: The controller.
        news: What it has counted.
    """

    name: str
    controller: "TargetController"
    news: News

    @property
    def words(self) -> tuple[float, ...]:
        """What a store needs in order to add it to what others have counted."""
        amount, news = self.controller.amount, self.news
        bounds = (MOST_BALANCE * amount, PRIOR_QUERIES * amount, MEMORY)
        return (*bounds, news.balance, news.queries, news.ends, news.taken, news.expected)


class Aim:
    """How one query within a target is answered; it counts from when this is made.

    Args:
        target: What a query may take on average.
        controller: Counts what queries take.
        mixture: The operating points to choose from.
        position: The query's position; see `position_of`.

    Attributes:
        target: See above.
        point: The operating point that answers it.
    """

    def __init__(self, target: Target, controller: TargetController, mixture: Mixture, position: float) -> None:
        self.target, self.point = target, mixture.point_for(position)
        self._controller, self._expected = controller, mixture.takes_at(position)
        self._counted = controller.begin(self._expected)
        self._has_ended = False

    def took(self, taken: float) -> None:
        """Count what the query took; only the first time has an effect."""
        if not self._has_ended:
            self._has_ended = True
            self._controller.end(taken, expected=self._expected, counted=self._counted)


class Controllers:
    """The controllers of the targets that a model and its copies are called with; those least used lately are forgotten."""

    def __init__(self) -> None:
        self._controllers: dict[tuple[str, Target, frozenset[str]], TargetController] = {}
        self._lock = threading.Lock()

    def aim(self, policy: Any, target: Target, members: frozenset[str], *, query: str, task: str | None) -> Aim:
        """Choose how a query within a target is answered.

        Args:
            policy: The policy.
            target: What a query may take on average.
            members: Who is in the pool.
            query: The query's text.
            task: Its task label.

        Raises:
            InputError: The policy has no curve, or the target is out of its reach.
        """
        curve, key = curve_of(policy), (policy.policy_id, target, members)
        with self._lock:
            controller = self._controllers.pop(key, None) or TargetController(curve.amount(target, members))
            self._controllers[key] = controller
            while len(self._controllers) > MAX_CONTROLLERS:
                del self._controllers[next(iter(self._controllers))]
        mixture = curve.mixture(target.unit, controller.aim, members)
        return Aim(target, controller, mixture, position_of(query, task))

    def take_news(self) -> list[NamedNews]:
        """Return what each controller has counted since the last time, for other processes."""
        with self._lock:
            controllers = [*self._controllers.items()]
        return [NamedNews(_name_of(*key), one, one.take_news()) for key, one in controllers]

    def follow(self, news: Sequence[NamedNews], states: Sequence[Sequence[float]]) -> None:
        """Go on from what all processes have counted, in the order of the news."""
        for one, state in zip(news, states, strict=True):
            one.controller.follow(*state)


def _name_of(policy_id: str, target: Target, members: frozenset[str]) -> str:
    """Name a controller, the same in every process."""
    said = "\0".join([policy_id, target.name, repr(target.value), *sorted(members)])
    return hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
