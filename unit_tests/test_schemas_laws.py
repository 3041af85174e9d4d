"""Laws of schemas, on schemas and values that Hypothesis makes."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from referencing import Registry

from langchain_rlfocal.answers.schemas import Schema, canonical_calls


def of(**properties):
    return {"type": "object", "properties": properties}


def optional(rules):
    return {"anyOf": [rules, {"type": "null"}]}


INTEGER, NUMBER, STRING, BOOLEAN = ({"type": name} for name in ("integer", "number", "string", "boolean"))
ADDRESS = {**of(city=STRING, zip={**INTEGER, "default": 0}), "required": ["city"]}


# ---- laws

NAMES = st.sampled_from("abc")
SCALARS = st.sampled_from(
    [None, True, False, 0, 1, 3, 1.0, 2.5, "3", "1", "2.5", "true", "x", " x ", "x  y", "x y", ""]
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)
TYPES = st.sampled_from(["integer", "number", "string", "boolean", "null", "object", "array"])
FORMS = {
    "minimum": st.integers(0, 3),
    "maxLength": st.integers(0, 3),
    "pattern": st.just("x y"),
    "format": st.just("date"),
}
LEAVES = st.one_of(
    st.fixed_dictionaries({"type": TYPES}),
    st.fixed_dictionaries({"type": TYPES}, optional=FORMS),
    st.fixed_dictionaries({"enum": st.lists(SCALARS, min_size=1, max_size=3)}),
    st.fixed_dictionaries({"const": SCALARS}),
    st.sampled_from([True, False, {"$ref": "#"}, {"$ref": "#/$defs/d"}]),
)


def _is_rules(rules):
    return isinstance(rules, dict)


def _compound(inner):
    several = st.lists(inner, min_size=1, max_size=3)
    objects = {
        "required": st.lists(NAMES, max_size=2, unique=True),
        "additionalProperties": inner,
        "patternProperties": st.dictionaries(st.sampled_from(["^a", "[bc]"]), inner, max_size=1),
        "maxProperties": st.integers(0, 2),
        "dependentRequired": st.just({"a": ["b"]}),
        "dependentSchemas": st.dictionaries(NAMES, inner, max_size=1),
        "unevaluatedProperties": inner,
        "allOf": several,
    }
    arrays = {"items": inner, "prefixItems": several, "uniqueItems": st.booleans(), "contains": inner}
    arrays |= {"unevaluatedItems": inner, "anyOf": several}
    mixed = dict.fromkeys(("anyOf", "oneOf", "allOf"), several) | dict.fromkeys(("not", "if", "then", "else"), inner)
    with_default = st.builds(lambda rules, value: {**rules, "default": value}, inner.filter(_is_rules), VALUES)
    return st.one_of(
        st.fixed_dictionaries(
            {"properties": st.dictionaries(NAMES, inner | with_default, max_size=3)}, optional=objects
        ),
        st.fixed_dictionaries({"type": st.just("array")}, optional=arrays),
        st.fixed_dictionaries(
            {}, optional={**mixed, "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True)}
        ),
    )


RULES = st.recursive(LEAVES, _compound, max_leaves=8)
SCHEMAS = st.builds(lambda rules, d: {**rules, "$defs": {"d": d}}, RULES.filter(_is_rules), RULES)
MANY = settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])


def _is_valid(rules, value):
    """What the standard says; None where a reference leads back to itself."""
    try:
        return Draft202012Validator(rules, registry=Registry()).is_valid(value)
    except RecursionError:
        return None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # so it says where the stack ends within its own library
            raise
        return None


def _said_anew(value, draw):
    """The same value but for the order of keys, 1.0 for 1, white space, and at times the order of items."""
    if isinstance(value, dict):
        return {key: _said_anew(item, draw) for key, item in draw(st.permutations(list(value.items())))}
    if isinstance(value, list):
        return [_said_anew(item, draw) for item in draw(st.permutations(value) | st.just(value))]
    if isinstance(value, str):
        return draw(st.sampled_from([value, f" {value} ", value.replace(" ", "  "), value.strip()]))
    return float(value) if type(value) is int and draw(st.booleans()) else value


@MANY
@given(SCHEMAS, VALUES)
def test_reading_changes_no_argument_and_what_is_written_reads_the_same(rules, value):
    before, schema = repr(value), Schema(rules)
    reading = schema.read(value)
    written = schema.write(reading.value)

    assert repr(value) == before
    assert reading.fault is None or written is None or schema.read(written).fault is None
    assert written is None or schema.label(schema.read(written).value) == schema.label(reading.value)


@MANY
@given(SCHEMAS, VALUES)
def test_faults_are_what_the_standard_finds_in_the_value_read(rules, value):
    schema = Schema(rules)
    reading = schema.read(value)
    valid = _is_valid(rules, reading.value)

    assert reading.fault is None or 0 < len(reading.fault) <= 200
    assert valid in {reading.fault is None, None}
    assert not _is_valid(rules, value) or reading.fault is None  # what is valid stays valid


@MANY
@given(SCHEMAS, VALUES, st.data())
def test_values_of_equal_forms_are_equally_valid(rules, value, data):
    schema, other = Schema(rules), _said_anew(value, data.draw)

    assert schema.canonical(value) != schema.canonical(other) or (schema.read(value).fault is None) == (
        schema.read(other).fault is None
    )


@given(SCHEMAS, st.lists(st.dictionaries(NAMES, VALUES, max_size=3), max_size=4), st.randoms(use_true_random=False))
def test_neither_the_order_of_calls_nor_that_of_arguments_matters(rules, arguments, random):
    schemas = {"f": Schema(rules)}
    calls = [{"name": "f", "args": args} for args in arguments]
    shuffled = [{"name": "f", "args": dict(random.sample(list(args.items()), len(args)))} for args in arguments]
    random.shuffle(shuffled)

    assert canonical_calls(shuffled, schemas) == canonical_calls(calls, schemas)
