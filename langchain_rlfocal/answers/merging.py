"""Merging: one object out of those that several members returned, field by field.

Members rarely agree on a whole object, and often on each of its fields. Each field is decided by itself: the value most
weight stands behind, the median of numbers. Fields on which members do not agree at all, such as the words of a reason,
cannot be decided so, and speak of the others: where there are any, the whole object is that of the member who stands behind
most of what was decided. So a reason never stands beside a verdict that its author did not give.

Whatever comes out, some candidate said verbatim; but fields that depend on each other may no longer fit, so the caller
checks the result against the schema.
"""

import math
import sys
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import chain
from typing import Any

from langchain_rlfocal.answers.schemas import Schema, folded_text

_LONG_WORDS = 8
_CLOSE = 1e-6
_EPSILON = 1e-9  # shares this close are equal: sums of rounded weights
_MAX_DEPTH = 50


@dataclass(frozen=True, slots=True)
class Merged:
    """What candidates say together.

    Attributes:
        value: The merged value; it shares its parts with the candidates' values.
        agreement: By the dotted path of each field (`"address.city"`; `""` names the value itself), the share of the weight
            that says the same as the value chosen, in [0, 1]. A property that was left out has the share of those that
            have the object without it.
    """

    value: Any
    agreement: Mapping[str, float]


def merge(values: Sequence[Any], weights: Sequence[float], *, leader: int, schema: Schema) -> Merged:
    """Merge candidates' values field by field.

    - Objects are merged by property, in the leader's order and then the others'. A property stays if it is required, or
      those that have it outweigh those that have the object without it. Objects of different alternatives of an `anyOf`
      or `oneOf` are not mixed: the heaviest alternative wins.
    - Numbers (not integers): the lower weighted median, and what is within 1e-6 of it says the same.
    - Free text (of more than eight words, with no rule about its form): decided only by a majority that says the same.
    - Everything else, and each list as a whole: the value most weight stands behind. Strings of no fixed form are the
      same in any case and with any white space, in lists too.
    - Fields that this leaves open, free text without a majority and what no two say alike, are not mixed with those of
      other members: then the value is a candidate's as a whole, of those that agree with most of the decided fields the
      most trusted.

    Ties go to the leader's value, else to that of the heavier candidate, else to that of the earlier. So does the choice
    of whose spelling of one value comes out.

    Args:
        values: N candidates' values, each normalised by `schema`.
        weights: Weight of each, N finite floats of at least 0, one of them positive; only their ratios matter.
        leader: Index of the most trusted candidate.
        schema: Schema of the values.
    """
    largest = max(weights)
    total = math.fsum(weight / largest for weight in weights)
    merger = _Merger([weight / largest / total for weight in weights], leader)
    value, chosen = merger.merge(dict(enumerate(values)), schema, "", 0), None
    if any(field.is_open for field in merger.fields):
        chosen = merger.most_decided(range(len(values)))
        value = values[chosen]
    return Merged(value, merger.agreement(chosen))


@dataclass(frozen=True, slots=True)
class _Field:
    """What was decided of one field.

    Attributes:
        path: Its dotted path.
        winners: Candidates that say what was chosen.
        side_of: Names those who say the same as a candidate; nobody, if that one says nothing of the field.
        is_open: True if nothing was decided.
        has_fields: True if what was chosen is an object with fields of its own, which tell how many agree.
    """

    path: str
    winners: Collection[int]
    side_of: Callable[[int], Collection[int]]
    is_open: bool = False
    has_fields: bool = False


@dataclass(frozen=True, slots=True)
class _Merger:
    shares: Sequence[float]
    leader: int
    fields: list[_Field] = field(default_factory=list)

    def merge(self, said: Mapping[int, Any], schema: Schema, path: str, depth: int) -> Any:
        """Merge what candidates say, by their indices, of one field."""
        ballots = _ballots(said, schema, whole=depth >= _MAX_DEPTH)
        groups = _grouped(said, lambda candidate: ballots[candidate].group)
        labels = _grouped(said, lambda candidate: (ballots[candidate].group, ballots[candidate].label))
        winners = self._heaviest(groups)
        kind = ballots[winners[0]].kind

        def side_of(candidate: int) -> Collection[int]:
            if candidate not in said:
                return ()
            if ballots[candidate].kind == "number":
                alike = groups[ballots[candidate].group]
                return [i for i in alike if math.isclose(said[i], said[candidate], rel_tol=_CLOSE)]
            return labels[ballots[candidate].group, ballots[candidate].label]

        if kind == "object" or (kind != "value" and len(groups) > 1):
            self._decide(path, winners, said, has_fields=True)
        if kind == "object":
            return self._object({i: said[i] for i in winners}, ballots[winners[0]].shape, path, depth)
        if kind == "number":
            chosen, is_open = self._median(winners, said), False
        else:
            alike = self._heaviest(_grouped(winners, lambda candidate: ballots[candidate].label))
            is_minor = len(alike) < len(said) and self._share(alike) <= self._share(said) / 2 + _EPSILON
            is_open = is_minor and (kind == "text" or all(len(side) == 1 for side in labels.values()))
            chosen = min(alike, key=self._rank)
        self.fields.append(_Field(path, side_of(chosen), side_of, is_open))
        return said[chosen]

    def _object(self, said: Mapping[int, dict[str, Any]], shape: Schema, path: str, depth: int) -> dict[str, Any]:
        order = sorted(said, key=lambda candidate: candidate != self.leader)
        merged = {}
        for name in dict.fromkeys(chain.from_iterable(said[candidate] for candidate in order)):
            inner = f"{path}.{name}" if path else name
            having = {candidate: value[name] for candidate, value in said.items() if name in value}
            lacking = [candidate for candidate in said if candidate not in having]
            is_rare = self._share(having) <= self._share(lacking) + _EPSILON
            if lacking and is_rare and name not in shape.required:
                self._decide(inner, lacking, said)
            else:
                if not is_rare:
                    self._decide(inner, having, said, has_fields=True)
                merged[name] = self.merge(having, shape.field(name), inner, depth + 1)
        if not merged and not any(said.values()):
            self._decide(path, said, said)
        return merged

    def _decide(self, path: str, winners: Collection[int], said: Collection[int], *, has_fields: bool = False) -> None:
        """Note one of two sides."""
        others = [candidate for candidate in said if candidate not in winners]
        sides = {**dict.fromkeys(winners, winners), **dict.fromkeys(others, others)}
        self.fields.append(_Field(path, winners, lambda candidate: sides.get(candidate, ()), has_fields=has_fields))

    def most_decided(self, candidates: Iterable[int]) -> int:
        """Find the candidate that agrees with most of what was decided."""
        decided = [set(field.winners) for field in self.fields if not field.is_open]
        agreed = {candidate: sum(candidate in winners for winners in decided) for candidate in candidates}
        return min(agreed, key=lambda candidate: (-agreed[candidate], -self.shares[candidate], self._rank(candidate)))

    def agreement(self, chosen: int | None) -> dict[str, float]:
        """Return the share that agrees on each field, with what was merged or with one candidate."""
        found: dict[str, float] = {}
        for decided in self.fields:
            side = decided.winners if chosen is None else decided.side_of(chosen)
            if side and not (decided.has_fields and (chosen is None or chosen in decided.winners)):
                share = self._share(side)
                # The least, where a dot in a property's name makes two fields one path.
                found[decided.path] = min(found.get(decided.path, 1.0), share if share < 1 - _EPSILON else 1.0)
        return found

    def _median(self, candidates: Sequence[int], said: Mapping[int, Any]) -> int:
        """Find the most trusted candidate that says the lower weighted median."""
        half, below = self._share(candidates) / 2 - _EPSILON, 0.0
        for candidate in sorted(candidates, key=lambda candidate: said[candidate]):
            below += self.shares[candidate]
            if below >= half:
                break
        return min((i for i in candidates if said[i] == said[candidate]), key=self._rank)

    def _heaviest(self, groups: Mapping[Hashable, list[int]]) -> list[int]:
        weights = {group: self._share(candidates) for group, candidates in groups.items()}
        most = max(weights.values()) - _EPSILON
        tied = [candidates for group, candidates in groups.items() if weights[group] >= most]
        return min(tied, key=lambda candidates: min(map(self._rank, candidates)))

    def _rank(self, candidate: int) -> tuple[bool, float, int]:
        return candidate != self.leader, -self.shares[candidate], candidate

    def _share(self, candidates: Iterable[int]) -> float:
        return math.fsum(self.shares[candidate] for candidate in candidates)


@dataclass(frozen=True, slots=True)
class _Ballot:
    """What one candidate says of a field.

    Attributes:
        kind: `"object"`, `"number"` (whose median counts), `"text"` (free text) or `"value"` (anything else).
        label: What it says; equal labels say the same.
        group: What it votes for at first; kinds other than `"value"` stand together, however they differ.
        shape: The field's schema, narrowed to what it says.
    """

    kind: str
    label: Hashable
    group: Hashable
    shape: Schema


def _ballots(said: Mapping[int, Any], schema: Schema, *, whole: bool) -> dict[int, _Ballot]:
    """Read what candidates say of a field; `whole` takes objects for single values."""
    shapes: dict[Hashable, Schema] = {}
    keys = {i: (type(value), value) if _is_scalar(value) else i for i, value in said.items()}
    for i, value in said.items():
        if keys[i] not in shapes:
            shapes[keys[i]] = schema.narrowed(value)
    medians = any("number" in shape.types and not shape.mentions("enum", "const") for shape in shapes.values()) or any(
        isinstance(value, Decimal) or (isinstance(value, float) and not shapes[keys[i]].types)
        for i, value in said.items()
    )
    prose = any(
        isinstance(value, str) and len(value.split(maxsplit=_LONG_WORDS)) > _LONG_WORDS for value in said.values()
    )
    ballots: dict[Hashable, _Ballot] = {}
    for i, value in said.items():
        if keys[i] not in ballots:
            shape = shapes[keys[i]]
            kind, label = "value", ""
            if isinstance(value, dict) and not whole:
                kind = "object"
            elif isinstance(value, str) and not shape.limits_text:
                kind, label = "text" if prose else "value", f"text {folded_text(value, case=False)}"
            elif medians and _is_number(value):
                kind = "number"
            else:
                label = schema.label(value)
            group = (kind, shape.choices if kind == "object" else label if kind == "value" else "")
            ballots[keys[i]] = _Ballot(kind, label, group, shape)
    return {i: ballots[key] for i, key in keys.items()}


def _grouped(candidates: Iterable[int], key: Callable[[int], Hashable]) -> dict[Hashable, list[int]]:
    groups: dict[Hashable, list[int]] = {}
    for candidate in candidates:
        groups.setdefault(key(candidate), []).append(candidate)
    return groups


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float))


def _is_number(value: Any) -> bool:
    """Whether a value is a finite number that a float can hold."""
    if isinstance(value, Decimal):
        return value.is_finite() and abs(value) <= sys.float_info.max
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
