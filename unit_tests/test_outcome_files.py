"""Files: what is written is read back, what breaks a rule is named, and nothing half-written stays."""

import itertools
import json
import math
from pathlib import Path
from unittest.mock import MagicMock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_rlfocal.errors import OutcomeError
from langchain_rlfocal.outcomes import Outcome, OutcomeTable, files
from langchain_rlfocal.outcomes.tables import append_jsonl

SUFFIXES = ("parquet", "jsonl", "ndjson", "csv")
ROW = {"task": "sums", "query_id": "q1", "query": "1 + 1?", "model": "a", "answer": "2", "reward": 1.0}

texts = st.text(max_size=8) | st.sampled_from(
    ["", " ", '"', ",", "\r\n", "\n", "\r", "\u2028", "\x00", "NA", "null", "é"]
)
names = texts.filter(bool)
amounts = st.floats(min_value=0, allow_infinity=False, allow_nan=False)
counts = st.integers(min_value=0, max_value=2**53 - 1)
finite = st.floats(allow_infinity=False, allow_nan=False)
outcomes = st.builds(
    Outcome,
    task=names,
    query_id=names,
    query=st.just("What?"),
    model=names,
    response=st.none() | texts,
    answer=st.none() | texts,
    gold=st.none() | texts,
    reward=st.none() | st.floats(min_value=0, max_value=1),
    option_probs=st.none() | st.lists(finite, max_size=3).map(tuple),
    prompt_tokens=st.none() | counts,
    completion_tokens=st.none() | counts,
    cost_usd=st.none() | amounts,
    latency_s=st.none() | amounts,
    logprob=st.none() | finite,
    propensity=st.none() | st.floats(min_value=0, max_value=1, exclude_min=True),
)


def key(outcome):
    return outcome.task, outcome.query_id, outcome.model


def write_csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    return path


def write_rows(path: Path, *rows: dict) -> Path:
    """Write what another program would: rows as the suffix says."""
    if path.suffix == ".csv":
        write_csv(path, ",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_error(path: Path) -> OutcomeError:
    with pytest.raises(OutcomeError) as caught:
        OutcomeTable.read(path)
    assert str(path) in str(caught.value)
    return caught.value


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=30)
@given(rows=st.lists(outcomes, min_size=1, max_size=5, unique_by=key))
def test_every_format_gives_back_what_was_written(rows, suffix, tmp_path_factory):
    """Null stays null and the empty text stays empty, numbers keep every bit, odd line ends stay in their text."""
    path = tmp_path_factory.getbasetemp() / f"round-trip.{suffix}"
    OutcomeTable.from_outcomes(rows).write(path)
    assert list(OutcomeTable.read(path)) == rows


def test_the_suffix_is_read_in_any_case_and_an_unknown_one_is_refused(tmp_path):
    table = OutcomeTable.from_outcomes([Outcome(**ROW)])
    table.write(tmp_path / "table.CSV")
    assert list(OutcomeTable.read(tmp_path / "table.CSV")) == list(table)
    for use in (table.write, OutcomeTable.read):
        with pytest.raises(OutcomeError, match=r"\.parquet, \.jsonl, \.ndjson, \.csv, got '\.xlsx'"):
            use(tmp_path / "table.xlsx")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_missing_column_is_named_and_an_unknown_one_kept(suffix, tmp_path):
    path = tmp_path / f"table.{suffix}"
    for missing in ROW:
        error = read_error(write_rows(path, {name: value for name, value in ROW.items() if name != missing}))
        assert error.column == missing
        assert "must have" in error.rule
    assert list(OutcomeTable.read(write_rows(path, {"mood": "fine", **ROW}))) == [
        Outcome(**ROW, extras={"mood": "fine"})
    ]


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("task", True, "text, got True"),
        ("query_id", {"a": 1}, "text, got {'a': 1}"),
        ("query_id", math.inf, "text, got inf"),
        ("task", None, "text in every row"),
        ("query", "", "not be empty"),
        ("model", ["a"], "text"),
        ("response", ["a"], r"text, got \['a'\]"),
        ("reward", "1", "a number, got '1'"),
        ("reward", -0.1, r"\[0, 1\], got -0.1"),
        ("reward", 1.001, r"\[0, 1\], got 1.001"),
        ("reward", 10**400, "a number, got 1000"),
        ("propensity", 0, "above 0 and at most 1, got 0.0. A member that cannot have been asked has no row: delete it"),
        ("propensity", 1.5, "above 0 and at most 1, got 1.5"),
        ("option_probs", 0.5, "a list of numbers, got 0.5"),
        ("option_probs", [0.5, "b"], r"a list of numbers, got \[0.5, 'b'\]"),
        ("option_probs", [0.5, math.nan], "finite numbers"),
        ("prompt_tokens", 1.5, "a whole number.* got 1.5"),
        ("completion_tokens", -1, "at least 0, got -1"),
        ("completion_tokens", 2**53, "a whole number"),
        ("cost_usd", math.inf, "finite and at least 0, got inf"),
        ("latency_s", -1e-9, "finite and at least 0, got -1e-09"),
        ("logprob", -math.inf, "finite, got -inf"),
    ],
)
def test_a_value_that_breaks_a_rule_is_named_with_its_row(column, value, rule, tmp_path):
    """The second row breaks the rule, in a file and in memory alike."""
    bad = {**ROW, "query_id": "q2", column: value}
    error = read_error(write_rows(tmp_path / "table.jsonl", ROW, bad))
    assert (error.row, error.column) == (2, column)
    with pytest.raises(OutcomeError, match=rule) as caught:
        OutcomeTable.from_outcomes([Outcome(**ROW), Outcome(**bad)])
    assert (caught.value.file, caught.value.row, caught.value.column) == (None, 2, column)
    assert caught.value.rule == error.rule


def test_a_row_far_down_a_long_file_is_counted_from_its_start(tmp_path):
    """JSONL is read in batches; row 10,001 is in the second."""
    rows = [{**ROW, "query_id": str(index)} for index in range(10_002)]
    rows[10_000]["reward"] = "high"
    error = read_error(write_rows(tmp_path / "table.jsonl", *rows))
    assert (error.row, error.column) == (10_001, "reward")
    rows[10_000]["reward"] = 2
    assert read_error(write_rows(tmp_path / "table.jsonl", *rows)).row == 10_001


@pytest.mark.parametrize(
    ("column", "text", "row", "rule"),
    [
        ("reward", "good", 2, "a number, got 'good'"),
        ("reward", "yes", 2, "a number, got 'yes'"),
        ("prompt_tokens", "1.5", 2, "a whole number"),
        ("option_probs", "[1,", 2, "a JSON list of numbers"),
        ("option_probs", "7", 2, "a list of numbers, got 7"),
    ],
)
def test_a_csv_cell_that_is_no_number_is_named(column, text, row, rule, tmp_path):
    first, second = {**ROW, column: "[1]" if column == "option_probs" else "1"}, {**ROW, "query_id": "q2", column: text}
    lines = [",".join(first), *(",".join(f'"{v}"' if v != "" else "" for v in row.values()) for row in (first, second))]
    error = read_error(write_csv(tmp_path / "table.csv", *lines))
    assert (error.row, error.column) == (row, column)
    assert rule in error.rule


def test_csv_of_spreadsheets_is_read(tmp_path):
    """Numbers with spaces, whole numbers with a point, and nothing, unquoted, told from an empty text."""
    header = ",".join([*ROW, "gold", "prompt_tokens"])
    rows = 'sums,q1,1 + 1?,a,"", 1 ,,12.0', "sums,q1,1 + 1?,b,,0,NA,", "sums,q1,1 + 1?,c,x,,NA,"
    one, two, three = OutcomeTable.read(write_csv(tmp_path / "t.csv", header, *rows))
    assert (one.answer, one.gold, one.reward, one.prompt_tokens) == ("", None, 1.0, 12)
    assert (two.answer, two.gold, two.reward, two.prompt_tokens) == (None, "NA", 0.0, None)
    assert three.reward is None, "unscored, not wrong"


def test_a_csv_row_longer_than_a_block_is_read(tmp_path):
    long = Outcome(**{**ROW, "answer": "x\n" * 2**20})
    OutcomeTable.from_outcomes([long]).write(tmp_path / "t.csv")
    assert list(OutcomeTable.read(tmp_path / "t.csv")) == [long]


def test_parquet_types_of_other_writers_are_taken(tmp_path):
    """Dictionaries, single precision, integers as doubles with gaps, numbers as texts, and columns without a value."""
    arrays = {
        "task": pa.array(["sums", "sums"]).dictionary_encode(),
        "query_id": pa.array(["q1", "q2"], pa.large_string()),
        "query": pa.array(["1 + 1?", "2 + 2?"], pa.string_view()),
        "model": pa.array(["a", "a"]),
        "answer": pa.nulls(2),
        "gold": pa.array([2, 4]),
        "reward": pa.array([1, 0], pa.int8()),
        "option_probs": pa.array([[0.5], []], pa.large_list(pa.float32())),
        "prompt_tokens": pa.array([12.0, math.nan]),
        "latency_s": pa.nulls(2),
    }
    pq.write_table(pa.table(arrays), tmp_path / "t.parquet")
    common = {"task": "sums", "model": "a", "answer": None}
    assert list(OutcomeTable.read(tmp_path / "t.parquet")) == [
        Outcome(**common, query_id="q1", query="1 + 1?", gold="2", reward=1.0, option_probs=(0.5,), prompt_tokens=12),
        Outcome(**common, query_id="q2", query="2 + 2?", gold="4", reward=0.0, option_probs=()),
    ]


@pytest.mark.parametrize(("column", "value"), [("query_id", [1]), ("reward", "good"), ("option_probs", "[1]")])
def test_a_parquet_column_of_another_type_is_named(column, value, tmp_path):
    error = read_error(write_rows(tmp_path / "t.parquet", {**ROW, column: value}))
    assert error.column == column
    assert "got a column of type" in error.rule


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_column_that_stands_twice_is_named(suffix, tmp_path):
    path = tmp_path / f"t.{suffix}"
    if suffix == "csv":
        write_csv(path, ",".join([*ROW, "task"]), "sums,q1,1 + 1?,a,2,1,sums")
    else:
        columns = [pa.array([value]) for value in ROW.values()]
        pq.write_table(pa.Table.from_arrays([*columns, columns[0]], names=[*ROW, "task"]), path)
    assert "task" in read_error(path).rule


@pytest.mark.parametrize("line", ["{", "[1]", "7", "null", "[" * 100_000])
def test_a_line_that_is_no_json_object_is_named(line, tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(f"{json.dumps(ROW)}\n\n{line}\n")
    error = read_error(path)
    assert error.row == 2, "empty lines are no rows"
    assert "one JSON object" in error.rule


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_not_what_its_suffix_says_is_refused(suffix, tmp_path):
    path = tmp_path / f"t.{suffix}"
    assert "must exist" in read_error(path).rule
    path.write_bytes(b"task,query_id,query,model,answer,reward\n\xff\xfe,b,c,d,e,1\n")
    assert read_error(path).rule
    path.unlink()
    path.mkdir()
    assert "readable" in read_error(path).rule


def test_half_a_surrogate_pair_is_replaced_and_a_whole_one_is_joined(tmp_path):
    """JSON can carry \\ud83d alone, UTF-8 cannot: one odd answer must not lose a collection."""
    bad = Outcome(**{**ROW, "answer": "a\ud83d", "response": "\ud83d\ude00"})
    (row,) = OutcomeTable.from_outcomes([bad])
    assert (row.answer, row.response) == ("a\ufffd", "😀")
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({**ROW, "answer": "a\ud83d"}))
    assert [row.answer for row in OutcomeTable.read(path)] == ["a\ufffd"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(suffix, tmp_path, monkeypatch):
    """The disk fills after some bytes: the file is as before, and no temporary file stays."""
    path = tmp_path / f"t.{suffix}"
    path.write_bytes(b"old")

    def fill(table, sink):
        sink.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(files._WRITERS, path.suffix, fill)
    with pytest.raises(OSError, match="No space"):
        OutcomeTable.from_outcomes([Outcome(**ROW)]).write(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(OutcomeError, match="folder must exist"):
        OutcomeTable.from_outcomes([]).write(tmp_path / "no" / "t.csv")


@settings(max_examples=30)
@given(rows=st.lists(outcomes, min_size=1, max_size=6, unique_by=key), cuts=st.lists(st.integers(0, 6), max_size=3))
def test_appended_batches_read_as_one_table(rows, cuts, tmp_path_factory):
    """Also where a last line was left open."""
    path = tmp_path_factory.getbasetemp() / "appended.jsonl"
    path.write_bytes(b"")
    for start, end in itertools.pairwise([0, *sorted(cuts), len(rows)]):
        append_jsonl(path, rows[start:end])
        if end % 2:
            path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    assert list(OutcomeTable.read(path)) == rows


def test_an_append_that_breaks_a_rule_or_does_not_fit_adds_nothing(tmp_path, monkeypatch):
    """The rule is broken by the second outcome; then the disk takes only part of the bytes."""
    path = tmp_path / "t.jsonl"
    append_jsonl(path, [Outcome(**ROW)])
    before = path.read_bytes()
    other = {**ROW, "model": "b"}
    with pytest.raises(OutcomeError, match="reward"):
        append_jsonl(path, [Outcome(**other), Outcome(**{**other, "query_id": "q2", "reward": 2})])
    assert path.read_bytes() == before

    real = Path.open

    def nearly_full(self, *mode, **options):
        sink = real(self, *mode, **options)
        full = MagicMock(wraps=sink, **{"write.side_effect": lambda data: sink.write(data[:10])})
        full.__enter__.return_value = full
        full.__exit__.side_effect = lambda *_: sink.close()
        return full

    monkeypatch.setattr(Path, "open", nearly_full)
    with pytest.raises(OSError, match="No space"):
        append_jsonl(path, [Outcome(**other)])
    monkeypatch.undo()
    assert path.read_bytes() == before
