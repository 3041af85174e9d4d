"""Merging: what candidates say together, field by field."""

import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.answers.schemas import Merged, Schema, merge

INTEGER, NUMBER, STRING, BOOLEAN, NULL = ({"type": name} for name in ("integer", "number", "string", "boolean", "null"))
LONG = "one two three four five six seven eight nine"


def of(*, required=(), **properties):
    return {"type": "object", "properties": properties, "required": list(required)}


def merged(values, weights=None, *, leader=0, rules=None):
    return merge(values, weights or [1.0] * len(values), leader=leader, schema=Schema(rules or {}))


def field(values, weights=None, *, leader=0, rules=None):
    """What a field `f` becomes, and the share behind it."""
    found = merged([{"f": value} for value in values], weights, leader=leader, rules=of(f=rules or {}))
    return found.value["f"], pytest.approx(found.agreement["f"])


# ---- votes


def test_every_field_goes_to_the_value_with_most_weight():
    """Weights 5, 3, 2: each says two of three fields like another."""
    found = merged(
        [
            {"city": "Rome", "people": 3, "open": True},
            {"city": "Oslo", "people": 4, "open": False},
            {"city": "Oslo", "people": 3, "open": False},
        ],
        [4.0, 3.0, 3.0],
        rules=of(city=STRING, people=INTEGER, open=BOOLEAN),
    )

    assert found.value == {"city": "Oslo", "people": 3, "open": False}
    assert found.agreement == pytest.approx({"city": 0.6, "people": 0.7, "open": 0.6})


NAMES = ["rome ", "Oslo", "ROME", "New  york", "Rome"]
TIED = ["a", "b", "b", "c"]
LISTS, CASED = [["a", "b"], ["b", " a"], ["c"]], [["Oslo"], ["Rome ", "Andr\u00e9"], ["rome", "ANDRE\u0301"]]
SET = {"type": "array", "uniqueItems": True}
FREE = [LONG, LONG.upper(), f"{LONG} ten", f"{LONG} eleven"]
OR_NULL = {"anyOf": [NUMBER, NULL]}

VOTES = [  # what candidates say, their weights, the leader, the rules; what comes out, and the share behind it
    # One heavier value beats two light ones.
    *((said, [3, 1, 1], 1, rules, said[0], 0.6) for said, rules in [
        (["a", "b", "b"], {"enum": ["a", "b"]}), ([1, 2.5, 2.5], {"enum": [1, 2.5]}), ([True, False, False], BOOLEAN),
        ([1, 2, 2], INTEGER), ([1, 2, 2], {})]),
    # Strings are the same in any case and white space, and come out as the most trusted wrote them.
    (NAMES, [1, 2, 1, 1, 1.5], 2, STRING, "ROME", 3.5 / 6.5),
    (NAMES, [1, 2, 1, 1, 1.5], 1, STRING, "Rome", 3.5 / 6.5),
    (NAMES, [1, 2, 1, 1, 1.0], 1, STRING, "rome ", 0.5),
    # Strings of a certain form count exactly.
    *((["b", "b", "A", "a", "A"], [1, 1, 1, 1.5, 0.5], 0, rules, "b", 0.4)
      for rules in ({"enum": ["A", "a", "b"]}, {"pattern": "[Aab]"}, {"format": "uuid"})),
    # One, true and the text 1 are three values.
    ([1, True, "1"], [1, 1, 1], 1, {}, True, 1 / 3),
    # Ties go to the leader, then to the heavier, then to the earlier.
    (TIED, [2, 1, 1, 1], 0, {}, "a", 0.4), (TIED, [2, 1, 1, 1], 1, {}, "b", 0.4), (TIED, [2, 1, 1, 1], 3, {}, "a", 0.4),
    (["a", "b", "c", "c", "d", "d"], [1] * 6, 0, {}, "c", 1 / 3),
    (["a", "a", "b"], [0.1, 0.3, 0.4], 0, {}, "a", 0.5),  # as shares, 0.1 and 0.3 come to less than 0.4 for a computer
    # Lists are one field, and sets are the same in any order; the strings in them are the same in any case.
    (LISTS, [1, 1, 1.5], 0, {"type": "array"}, ["c"], 1.5 / 3.5), (LISTS, [1, 1, 1.5], 0, SET, ["a", "b"], 2 / 3.5),
    (CASED, [1, 1, 1], 0, {"type": "array", "items": STRING}, CASED[1], 2 / 3),
    ([["A"], ["a"], ["b"]], [1, 1, 1], 2, {"items": {"enum": ["A", "a", "b"]}}, ["b"], 1 / 3),
    # Of numbers the lower weighted median comes out.
    ([1.0, 2.0, 9.0], [1, 1, 1], 0, NUMBER, 2.0, 1 / 3), ([9.0, 1.0, 2.0, 3.0], [1, 1, 1, 1], 0, NUMBER, 2.0, 0.25),
    ([1.0, 2.0, 9.0], [1, 1, 3], 0, NUMBER, 9.0, 0.6), ([1.0, 2.0], [3, 3], 0, NUMBER, 1.0, 0.5),
    ([1.5, 1.5000001, 9.0], [1, 1, 1], 0, NUMBER, 1.5000001, 2 / 3), ([3, 4.5, 3.0], [1, 1, 1], 0, NUMBER, 3, 2 / 3),
    ([1.0, 2.0, 3.0], [0.1, 0.3, 0.4], 0, NUMBER, 2.0, 0.375),  # half the weight, but for rounding
    ([2.0, math.inf, math.nan], [1, 0.5, 0.5], 0, NUMBER, 2.0, 0.5),
    ([10**400, 10**400, 1.5], [1, 1, 1], 0, NUMBER, 10**400, 2 / 3),
    # Integers are voted on; whole numbers where numbers are wanted are not.
    ([1, 5, 9, 9], [1] * 4, 0, INTEGER, 9, 0.5), ([1, 5, 9, 9], [1] * 4, 0, NUMBER, 5, 0.25),
    ([1, 5, 9, 9], [1] * 4, 0, {}, 9, 0.5), ([1.5, 5, 9, 9], [1] * 4, 0, {}, 5, 0.25),
    ([1, 2.5, 9, 9], [1] * 4, 0, {"enum": [1, 2.5, 9], "type": "number"}, 9, 0.5),
    # Numbers stand together against null: 2.0 and 3.0 have 5 of 8, and each alone less than null.
    ([2.0, 3.0, None], [2.5, 2.5, 3], 2, OR_NULL, 2.0, 2.5 / 8), ([2.0, 3.0, None], [1, 1, 3], 0, OR_NULL, None, 0.6),
    # Free text is the leader's unless a majority says the same; one long text makes a field free text, no form does.
    (FREE, [1, 1, 1, 1], 2, STRING, FREE[2], 0.25), (FREE, [2, 2, 1, 1], 2, STRING, LONG, 4 / 6),
    (FREE, [2, 1, 1, 1], 1, STRING, LONG.upper(), 0.6),
    (["a", "b", "b", LONG], [1] * 4, 0, STRING, "a", 0.25), (["a", "b", "b", LONG], [1] * 4, 0, {"pattern": ""}, "b", 0.5),
    (["a", "b", "b", LONG.removesuffix(" nine")], [1] * 4, 0, STRING, "b", 0.5),
    # Free texts stand together against null, and then the heaviest goes before a silent leader.
    ([f"{LONG} a", f"{LONG} b", None], [1, 1.5, 2], 2, {}, f"{LONG} b", 1.5 / 4.5),
    # Decimals and instants are compared by what they are.
    ([Decimal("20.00"), Decimal("19.990"), Decimal("19.99")], [1, 1, 1], 0, {}, Decimal("19.990"), 2 / 3),
    ([Decimal("NaN"), Decimal(1), Decimal("1.0")], [1, 1, 1], 0, {}, Decimal(1), 2 / 3),
    ([datetime(9999, 12, 31, tzinfo=UTC), datetime(2024, 5, 1, 12, tzinfo=UTC), datetime(2024, 5, 1, 14, tzinfo=timezone(timedelta(hours=2)))],
     [1, 1, 1], 0, {}, datetime(2024, 5, 1, 12, tzinfo=UTC), 2 / 3),
]  # fmt: skip


@pytest.mark.parametrize(("said", "weights", "leader", "rules", "value", "share"), VOTES)
def test_a_field_goes_to_what_most_weight_says_verbatim(said, weights, leader, rules, *, value, share):
    chosen, agreement = field(said, weights, leader=leader, rules=rules)

    assert repr(chosen) == repr(value)
    assert agreement == share


def test_all_weight_is_all_but_for_rounding():
    assert merged([1, 1], [0.1, 0.3]).agreement == {"": 1.0}


# ---- what members do not agree on stays with who said it

VERDICT = of(reason=STRING, score=INTEGER, verdict={"enum": ["pass", "fail"]})


def judged(reason, score, verdict):
    return {"reason": reason, "score": score, "verdict": verdict}


@pytest.mark.parametrize("leader", [0, 1, 2])
@pytest.mark.parametrize("long", ["", f"{LONG}: "])
def test_a_reason_comes_from_a_candidate_that_gave_the_verdict(long, leader):
    said = [judged(f"{long}bad", 2, "fail"), judged(f"{long}good", 8, "pass"), judged(f"{long}nice", 9, "pass")]
    found = merged(said, leader=leader, rules=VERDICT)

    assert found.value == said[leader or 1]
    assert found.agreement == pytest.approx({"reason": 1 / 3, "score": 1 / 3, "verdict": 2 / 3})


def test_the_heaviest_of_those_who_stand_behind_the_verdict_gives_the_reason():
    said = [judged("bad", 2, "fail"), judged("good", 8, "pass"), judged("nice", 8, "pass")]

    assert merged(said, [3.0, 2.0, 2.5], rules=VERDICT).value == said[2]
    assert merged(said, [5.0, 2.0, 2.5], rules=VERDICT).value == said[0]


def test_a_tie_of_verdicts_goes_to_the_leaders_with_its_reason():
    said = [
        judged(one, score, verdict)
        for one, score, verdict in zip("abcd", (2, 2, 9, 9), ("fail", "fail", "pass", "pass"), strict=True)
    ]

    assert merged(said, leader=2, rules=VERDICT).value == said[2]
    assert merged(said, leader=1, rules=VERDICT).value == said[1]


def test_the_reason_goes_with_the_median_that_its_author_gave():
    said = [{"reason": f"{LONG} {score}", "score": score} for score in (0.1, 0.9, 0.8)]

    assert merged(said, rules=of(reason=STRING, score=NUMBER)).value == said[2]


def test_where_nobody_stands_behind_all_fields_the_whole_object_of_the_closest_comes_out():
    """Majorities: a 1, b 1, c 1, d 1. The second has three of them, the others two."""
    said = [
        {"why": "x", "a": 1, "b": 1, "c": 2, "d": 3},
        {"why": "y", "a": 1, "b": 2, "c": 1, "d": 1},
        {"why": "z", "a": 3, "b": 1, "c": 1, "d": 2},
        {"why": "w", "a": 4, "b": 4, "c": 4, "d": 1},
    ]
    found = merged(said)

    assert found.value == said[1]
    assert found.agreement == {"why": 0.25, "a": 0.5, "b": 0.25, "c": 0.5, "d": 0.5}


def test_a_reason_within_an_object_stays_with_its_verdict_too():
    said = [
        {"of": judged("bad", 2, "fail"), "n": 1},
        {"of": judged("good", 8, "pass"), "n": 1},
        {"of": judged("nice", 8, "pass"), "n": 1},
    ]

    assert merged(said, rules=of(of=VERDICT, n=INTEGER)).value == said[1]
    listed = [{"why": [one], "ok": ok} for one, ok in (("a", False), ("b", True), ("c", True))]
    assert merged(listed).value == listed[1]


def test_short_texts_that_two_share_are_voted_on_and_mixed():
    said = [{"name": "Ann", "n": 1}, {"name": "ann ", "n": 2}, {"name": "Bob", "n": 2}]

    assert merged(said, rules=of(name=STRING, n=INTEGER)).value == {"name": "Ann", "n": 2}


# ---- objects

ADDRESS = of(city=STRING, zip=INTEGER, required=["city"])


def test_objects_within_objects_are_merged_by_dotted_path():
    found = merged(
        [
            {"home": {"city": "Rome", "zip": 1}, "n": 1},
            {"home": {"city": "Rome", "zip": 2}, "n": 1},
            {"home": {"city": "Oslo", "zip": 2}, "n": 1},
        ],
        rules=of(home=ADDRESS, n=INTEGER),
    )

    assert found.value == {"home": {"city": "Rome", "zip": 2}, "n": 1}
    assert found.agreement == {"home.city": pytest.approx(2 / 3), "home.zip": pytest.approx(2 / 3), "n": 1.0}


def test_a_property_stays_if_those_that_have_it_outweigh_the_others_or_it_is_required():
    values = [{"city": "Rome", "zip": 1}, {"zip": 1, "x": 3}, {"x": 3}, {"y": 1}]

    assert merged(values, rules=ADDRESS) == Merged({"city": "Rome"}, {"city": 0.25, "zip": 0.5, "x": 0.5, "y": 0.75})
    assert merged(values, [1, 1.5, 1, 1], rules=ADDRESS).value == {"city": "Rome", "zip": 1, "x": 3}


def test_properties_come_in_the_leaders_order_and_then_in_the_others():
    values = [{"c": 1, "d": 1, "a": 1, "b": 1}, {"b": 1, "a": 1}, {"d": 1, "a": 1, "c": 1}]

    assert list(merged(values, leader=1).value) == ["b", "a", "c", "d"]


def test_an_object_stands_against_null_as_a_whole():
    """Three differ in every field; null would win if each stood alone."""
    rules = of(home={"anyOf": [ADDRESS, NULL]})
    values = [{"home": home} for home in ({"city": "a"}, {"city": "b"}, {"city": "c"}, None)]

    assert merged(values, [1, 1, 1, 1.5], leader=3, rules=rules).value == {"home": {"city": "a"}}
    assert merged(values, [1, 1, 1, 4], rules=rules) == Merged({"home": None}, {"home": pytest.approx(4 / 7)})
    assert merged([values[0], values[0], values[3]], rules=rules).agreement == {"home.city": pytest.approx(2 / 3)}


def test_objects_of_different_alternatives_are_not_mixed():
    cat, dog = (of(kind={"const": kind}, n=INTEGER, required=["kind"]) for kind in ("cat", "dog"))
    values = [{"kind": "cat", "n": 1}, {"kind": "dog", "n": 2}, {"kind": "dog", "n": 1}]

    assert merged(values, leader=0, rules={"oneOf": [cat, dog]}).value == {"kind": "dog", "n": 2}


def test_what_is_no_object_is_merged_under_the_empty_path():
    assert merged([1, 2, 2]) == Merged(2, {"": pytest.approx(2 / 3)})
    assert merged([{}, {}]) == Merged({}, {"": 1.0})
    assert merged([{}, {"a": 1}, {}]) == Merged({}, {"a": pytest.approx(2 / 3)})


def test_two_fields_of_one_path_show_the_lesser_agreement():
    found = merged([{"a.b": 1, "a": {"b": 1}}, {"a.b": 2, "a": {"b": 1}}, {"a.b": 1, "a": {"b": 1}}])

    assert found.agreement == {"a.b": pytest.approx(2 / 3)}


def test_a_candidate_of_no_weight_decides_nothing_but_ties_and_what_is_required():
    values = [{"city": "Rome", "zip": 1}, {"zip": 2}]

    assert merged(values, [0.0, 1.0], rules=ADDRESS) == Merged({"city": "Rome", "zip": 2}, {"city": 0.0, "zip": 1.0})


def test_hundreds_of_fields_of_many_candidates_are_merged():
    """64 candidates with 200 fields each; every field's value is that of the 10 of 64 whose remainder is 0."""
    names = [f"field {at}" for at in range(200)]
    values = [dict.fromkeys(names, at % 7) for at in range(64)]
    found = merged(values, rules={"additionalProperties": {"anyOf": [INTEGER, NULL]}})

    assert found.value == dict.fromkeys(names, 0)
    assert set(found.agreement.values()) == {10 / 64}


# ---- laws

RULES = of(a=INTEGER, b=NUMBER, c=STRING, d={"anyOf": [of(a=INTEGER, b=NUMBER), NULL]}, e={"type": "array"})
SCALARS = st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from([0.5, 1.0, 2.0, "x", "X ", "y", LONG])
INNER = st.dictionaries(st.sampled_from("abc"), SCALARS | st.lists(SCALARS, max_size=2), max_size=3)
OBJECTS = st.dictionaries(st.sampled_from("abcde"), SCALARS | INNER | st.lists(SCALARS, max_size=2), max_size=4)
VALUES = st.lists(OBJECTS, min_size=1, max_size=6)
SCHEMAS = st.sampled_from([RULES, {}])


def weighed(data, values):
    """Weights of which no two subsets have equal sums, so that nothing is a tie."""
    return [float(2**power) for power in data.draw(st.permutations(range(len(values))))]


@given(OBJECTS | SCALARS, st.integers(1, 5), SCHEMAS)
def test_candidates_that_agree_get_what_they_said(value, count, rules):
    found = merged([value] * count, [0.1] * count, leader=count - 1, rules=rules)

    assert repr(found.value) == repr(value)
    assert set(found.agreement.values()) == {1.0}


@given(VALUES, SCHEMAS, st.data())
def test_the_order_of_candidates_does_not_matter(values, rules, data):
    weights, order = weighed(data, values), data.draw(st.permutations(range(len(values))))
    one = merged(values, weights, leader=0, rules=rules)
    other = merged([values[i] for i in order], [weights[i] for i in order], leader=order.index(0), rules=rules)

    assert other == one


@given(VALUES, SCHEMAS, st.data(), st.floats(1e-300, 1e300))
def test_the_scale_of_weights_does_not_matter(values, rules, data, scale):
    weights = data.draw(st.lists(st.integers(0, 5), min_size=len(values), max_size=len(values)).filter(any))
    one = merged(values, [float(weight) for weight in weights], rules=rules)
    other = merged(values, [weight * scale for weight in weights], rules=rules)

    assert repr(other.value) == repr(one.value)
    assert other.agreement == pytest.approx(one.agreement)


@given(VALUES, SCHEMAS, st.data())
def test_whatever_comes_out_some_candidate_said(values, rules, data):
    before = repr(values)
    found = merged(values, weighed(data, values), leader=len(values) - 1, rules=rules)

    assert repr(values) == before
    assert all(0 <= share <= 1 for share in found.agreement.values())
    for name, value in found.value.items():
        said = [other[name] for other in values if name in other]
        assert isinstance(value, dict) or repr(value) in map(repr, said)


@given(VALUES, SCHEMAS, st.data())
def test_what_more_than_half_the_weight_says_comes_out(values, rules, data):
    most = data.draw(st.sampled_from(values))
    found = merged([*values, *[most] * (len(values) + 1)], leader=0, rules=rules)

    assert Schema(rules).label(found.value) == Schema(rules).label(most)


@given(VALUES, SCHEMAS, st.data())
def test_free_text_is_said_by_who_says_the_rest(values, rules, data):
    """A field that no two fill alike comes with all the others of one candidate."""
    values = [{**value, "why": f"{LONG} {at}"} for at, value in enumerate(values)]
    weights = data.draw(st.lists(st.integers(1, 5).map(float), min_size=len(values), max_size=len(values)))
    found = merged(values, weights, leader=0, rules=rules)

    label = Schema(rules).label
    assert label(found.value) in [label(value) for value in values]
