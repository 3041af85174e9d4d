"""Merging: what candidates say together, field by field."""

import math
from datetime import UTC, datetime
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


@pytest.mark.parametrize("rules", [{"enum": ["a", "b"]}, {"enum": [1, 2.5]}, BOOLEAN, INTEGER, NULL, {}])
def test_one_heavier_value_beats_two_light_ones(rules):
    first, second = {"enum": rules.get("enum")}["enum"] or [1, 2]

    assert field([first, second, second], [3.0, 1.0, 1.0], leader=1, rules=rules) == (first, 0.6)


def test_strings_are_the_same_in_any_case_and_white_space_and_come_out_as_the_most_trusted_wrote_them():
    said = ["rome ", "Oslo", "ROME", "New  york", "Rome"]

    assert field(said, [1, 2, 1, 1, 1.5], leader=2, rules=STRING) == ("ROME", pytest.approx(3.5 / 6.5))
    assert field(said, [1, 2, 1, 1, 1.5], leader=1, rules=STRING)[0] == "Rome"
    assert field(said, [1, 2, 1, 1, 1.0], leader=1, rules=STRING)[0] == "rome "


@pytest.mark.parametrize("rules", [{"enum": ["A", "a", "b"]}, {"pattern": "[Aab]"}, {"format": "uuid"}])
def test_strings_of_a_certain_form_count_exactly(rules):
    assert field(["b", "b", "A", "a", "A"], [1, 1, 1, 1.5, 0.5], rules=rules) == ("b", 0.4)


def test_one_true_and_the_text_1_are_three_values():
    assert field([1, True, "1"], leader=1) == (True, pytest.approx(1 / 3))


def test_ties_go_to_the_leader_then_to_the_heavier_then_to_the_earlier():
    tied = ["a", "b", "b", "c"]

    assert field(tied, [2, 1, 1, 1], leader=0)[0] == "a"
    assert field(tied, [2, 1, 1, 1], leader=1)[0] == "b"
    assert (
        field(tied, [2, 1, 1, 1], leader=3)[0] == "a"
    )  # the leader's is not among the tied; "a" has the heavier candidate
    assert field(["a", "b", "c", "c", "d", "d"], [1, 1, 1, 1, 1, 1], leader=0)[0] == "c"


def test_sums_that_differ_by_rounding_alone_are_a_tie():
    """As shares, 0.1 and 0.3 come to less than 0.4 for a computer, and to less than all there is."""
    assert field(["a", "a", "b"], [0.1, 0.3, 0.4], leader=0) == ("a", 0.5)
    assert merged([1, 1], [0.1, 0.3]).agreement == {"": 1.0}


def test_lists_are_one_field_and_sets_are_the_same_in_any_order():
    said = [["a", "b"], ["b", " a"], ["c"]]

    assert field(said, [1, 1, 1.5], rules={"type": "array"})[0] == ["c"]
    assert field(said, [1, 1, 1.5], rules={"type": "array", "uniqueItems": True}) == (
        ["a", "b"],
        pytest.approx(2 / 3.5),
    )


def test_strings_in_lists_are_the_same_in_any_case_and_white_space():
    said = [["Oslo"], ["Rome ", "Andr\u00e9"], ["rome", "ANDRE\u0301"]]

    assert field(said, leader=0, rules={"type": "array", "items": STRING}) == (said[1], 2 / 3)
    assert field([["A"], ["a"], ["b"]], leader=2, rules={"items": {"enum": ["A", "a", "b"]}})[1] == 1 / 3


# ---- numbers


@pytest.mark.parametrize(
    ("said", "weights", "median", "share"),
    [
        ([1.0, 2.0, 9.0], [1, 1, 1], 2.0, 1 / 3), ([9.0, 1.0, 2.0, 3.0], [1, 1, 1, 1], 2.0, 0.25),  # the lower of two
        ([1.0, 2.0, 9.0], [1, 1, 3], 9.0, 0.6), ([1.0, 2.0], [3, 3], 1.0, 0.5),
        ([1.5, 1.5000001, 9.0], [1, 1, 1], 1.5000001, 2 / 3), ([3, 4.5, 3.0], [1, 1, 1], 3, 2 / 3),
        ([1.0, 2.0, 3.0], [0.1, 0.3, 0.4], 2.0, 0.375),  # half the weight, but for rounding
        ([2.0, math.inf, math.nan], [1, 0.5, 0.5], 2.0, 0.5), ([10**400, 10**400, 1.5], [1, 1, 1], 10**400, 2 / 3),
    ],
)  # fmt: skip
def test_of_numbers_the_lower_weighted_median_comes_out_verbatim(said, weights, median, share):
    value, agreement = field(said, weights, rules=NUMBER)

    assert repr(value) == repr(median)
    assert agreement == share


def test_integers_are_voted_on_and_whole_numbers_where_numbers_are_wanted_are_not():
    assert field([1, 5, 9, 9], rules=INTEGER)[0] == 9
    assert field([1, 5, 9, 9], rules=NUMBER)[0] == 5
    assert field([1, 5, 9, 9])[0] == 9
    assert field([1.5, 5, 9, 9])[0] == 5
    assert field([1, 2.5, 9, 9], rules={"enum": [1, 2.5, 9], "type": "number"})[0] == 9


def test_numbers_stand_together_against_null():
    """2.0 and 3.0 are two candidates for a number, with 5 of 8; each alone has less than null."""
    rules = {"anyOf": [NUMBER, NULL]}

    assert field([2.0, 3.0, None], [2.5, 2.5, 3], leader=2, rules=rules) == (2.0, 2.5 / 8)
    assert field([2.0, 3.0, None], [1, 1, 3], rules=rules) == (None, 0.6)


# ---- free text


def test_free_text_is_the_leaders_unless_a_majority_says_the_same():
    said = [LONG, LONG.upper(), f"{LONG} ten", f"{LONG} eleven"]

    assert field(said, leader=2, rules=STRING) == (f"{LONG} ten", 0.25)
    assert field(said, [2, 2, 1, 1], leader=2, rules=STRING) == (LONG, pytest.approx(4 / 6))
    assert field(said, [2, 1, 1, 1], leader=1, rules=STRING) == (LONG.upper(), 0.6)


def test_one_long_text_makes_the_field_free_text():
    assert field(["a", "b", "b", LONG], leader=0, rules=STRING) == ("a", 0.25)
    assert field(["a", "b", "b", LONG.removesuffix(" nine")], leader=0, rules=STRING) == ("b", 0.5)


def test_text_of_a_certain_form_is_never_free():
    assert field(["a", "b", "b", LONG], leader=0, rules={"pattern": ""}) == ("b", 0.5)


def test_free_texts_stand_together_against_null_and_then_the_heaviest_goes_before_a_silent_leader():
    assert field([f"{LONG} a", f"{LONG} b", None], [1, 1.5, 2], leader=2) == (f"{LONG} b", pytest.approx(1.5 / 4.5))


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


def test_decimals_and_instants_are_compared_by_what_they_are():
    utc, plus_2 = (datetime.fromisoformat(text) for text in ("2024-05-01T12:00:00+00:00", "2024-05-01T14:00:00+02:00"))

    assert field([Decimal("20.00"), Decimal("19.990"), Decimal("19.99")])[0] == Decimal("19.99")
    assert field([Decimal("NaN"), Decimal(1), Decimal("1.0")])[0] == Decimal(1)
    assert field([datetime(9999, 12, 31, tzinfo=UTC), utc, plus_2]) == (utc, 2 / 3)


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
