"""Files: what is written is read back, what breaks a rule is named, and nothing half-written stays."""

import io
import json
import math
import os
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_rlfocal.errors import OutcomeError
from langchain_rlfocal.outcomes import Outcome, OutcomeTable, files

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


def test_a_file_is_written_whole_or_not_at_all_and_a_link_to_it_stays_one(tmp_path):
    path, link = tmp_path / "page.html", tmp_path / "latest.html"
    path.write_bytes(b"old")
    link.symlink_to(path)
    with pytest.raises(TypeError), files.written_whole(link) as sink:
        sink.writelines([b"half", None])
    assert path.read_bytes() == b"old"
    with files.written_whole(link) as sink:
        sink.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert link.is_symlink()
    assert sorted(tmp_path.iterdir()) == [link, path]


# ---- what other programs write

HEADER = ",".join(ROW)
CSV_ROW = "sums,q1,1 + 1?,a,2,1"


@pytest.mark.parametrize("value", [1, 7.0, 0.5, 2**70, "007", "1.0"])
def test_an_id_is_the_same_in_every_format(value, tmp_path):
    """It is the text that CSV holds of it: whole numbers of any length, floats with their point, texts as they are."""
    columns = {name: [other] for name, other in {**ROW, "query_id": value}.items()}
    if value == 2**70:
        columns["query_id"] = pa.array([Decimal(value)], pa.decimal128(38, 0))
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    write_rows(tmp_path / "t.jsonl", {**ROW, "query_id": value})
    write_rows(tmp_path / "t.csv", {**ROW, "query_id": value})
    ids = {
        name: [row.query_id for row in OutcomeTable.read(tmp_path / f"t.{name}")]
        for name in ("parquet", "jsonl", "csv")
    }
    assert ids == {name: [str(value)] for name in ids}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("value", [True, False])
def test_a_reward_may_be_a_truth_value_and_a_label_a_number(suffix, value, tmp_path):
    path = write_rows(tmp_path / f"t.{suffix}", {**ROW, "reward": value, "answer": 4, "gold": 4, "model": 7})
    assert list(OutcomeTable.read(path)) == [
        Outcome(**{**ROW, "reward": float(value), "answer": "4", "gold": "4", "model": "7"})
    ]


def test_json_that_is_no_text_is_kept_as_json_text(tmp_path):
    gold = {"a": [1, None], "é": True}
    for suffix in ("jsonl", "parquet"):
        (row,) = OutcomeTable.read(write_rows(tmp_path / f"t.{suffix}", {**ROW, "gold": gold}))
        assert json.loads(row.gold) == gold


@pytest.mark.parametrize(
    ("separator", "reward", "named"),
    [(";", "0.5", "semicolons"), (";", "0,5", "semicolons"), ("\t", "0.5", "tabs"), ("|", "0.5", "bars")],
)
def test_a_csv_with_another_separator_is_read_and_that_is_said(separator, reward, named, tmp_path, caplog):
    """A comma in a text is none between columns; the decimal comma that goes with semicolons is read."""
    lines = HEADER.replace(",", separator), separator.join(["sums", "q1", "What, then?", "a", "2", reward])
    (row,) = OutcomeTable.read(write_csv(tmp_path / "t.csv", *lines))
    assert (row.query, row.reward) == ("What, then?", 0.5)
    assert named in caplog.text
    caplog.clear()
    OutcomeTable.read(write_csv(tmp_path / "t.csv", f"{HEADER},note", f"{CSV_ROW},a;b;c;d;e;f;g"))
    assert not caplog.text


def test_a_decimal_comma_is_none_where_commas_separate_or_in_a_count(tmp_path):
    assert read_error(write_csv(tmp_path / "t.csv", HEADER, 'sums,q1,1 + 1?,a,2,"0,5"')).column == "reward"
    lines = f"{HEADER},prompt_tokens".replace(",", ";"), "sums;q1;1 + 1?;a;2;1;1,5"
    assert read_error(write_csv(tmp_path / "t.csv", *lines)).column == "prompt_tokens"


@pytest.mark.parametrize(
    "text",
    [
        f"\ufeff{HEADER}\n{CSV_ROW}\n",
        f"sep=,\n{HEADER}\n{CSV_ROW}\n",
        f"sep=;\n{HEADER}\n{CSV_ROW}\n".replace(",", ";"),
        f",{HEADER}\n0,{CSV_ROW}\n",
        f"{HEADER},\n{CSV_ROW},\n",
        f"{HEADER}\n{CSV_ROW}\n".replace(",", ", ").replace("sums, ", "sums,"),
        f"\n{HEADER}\r\n{CSV_ROW}\r\n\r\n",
        f"{HEADER}\r{CSV_ROW}\r",
        "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in (HEADER, CSV_ROW)),
    ],
)
def test_csv_of_other_programs_is_read(text, tmp_path):
    """A mark of the encoding, Excel's line, pandas' index, separators at the ends, spaces, old line ends, quotes everywhere."""
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    (row,) = OutcomeTable.read(path)
    assert (row.task, row.query_id.strip(), row.model.strip(), row.reward) == ("sums", "q1", "a", 1.0)
    assert row.extras == {}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_an_encoding_that_is_certain_is_read(encoding, suffix, tmp_path):
    path = write_rows(tmp_path / f"t.{suffix}", {**ROW, "query": "Où?"})
    path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
    (row,) = OutcomeTable.read(path)
    assert row.query == "Où?"


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Où est la café, élève"),
        ("cp1251", "Кто написал роман Война и мир"),
        ("cp932", "これは日本語のテキストです"),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_an_encoding_that_is_not_certain_is_named_with_the_way_out(encoding, text, suffix, tmp_path):
    path = tmp_path / f"t.{suffix}"
    lines = (
        [HEADER, CSV_ROW.replace("1 + 1?", text)]
        if suffix == "csv"
        else [json.dumps({**ROW, "query": text}, ensure_ascii=False)]
    )
    path.write_bytes("\n".join(lines).encode(encoding))
    error = read_error(path)
    assert f"iconv -f {encoding.upper()} -t UTF-8" in error.rule
    assert f"line {len(lines)}" in error.rule


@pytest.mark.parametrize(
    ("lines", "row", "named"),
    [
        ([HEADER, CSV_ROW, "sums,q2,2"], 2, "6 cells, as the header has, got 3"),
        ([HEADER, f"{CSV_ROW},more"], 1, "got 7"),
        ([HEADER, CSV_ROW, 'sums,q2,"2 + 2?,a,4,1', "sums,q3,3 + 3?,b,6,1"], 2, "cells"),
        ([f"{HEADER},note", f"{CSV_ROW},x", 'sums,q2,2 + 2?,a,4,1,"half'], 2, "within quotes"),
        ([HEADER, CSV_ROW, HEADER, CSV_ROW.replace("q1", "q2")], 2, "repeats the header"),
        ([HEADER.replace("reward", "score"), CSV_ROW], None, "Add `reward`; it has `score`"),
    ],
)
def test_a_csv_that_is_torn_or_joined_is_refused_where_it_is(lines, row, named, tmp_path):
    error = read_error(write_csv(tmp_path / "t.csv", *lines))
    assert error.row == row
    assert named in error.rule


def test_a_task_may_be_called_as_its_column(tmp_path):
    (row,) = OutcomeTable.read(write_csv(tmp_path / "t.csv", HEADER, CSV_ROW.replace("sums", "task")))
    assert row.task == "task"


def test_a_text_that_ends_in_quotes_is_no_torn_one(tmp_path):
    (row,) = OutcomeTable.read(write_csv(tmp_path / "t.csv", f"{HEADER},note", f'{CSV_ROW},"he said ""yes"""'))
    assert row.extras == {"note": 'he said "yes"'}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_table_without_rows_is_refused(suffix, tmp_path):
    path = tmp_path / f"t.{suffix}"
    OutcomeTable.from_outcomes([]).write(path)
    assert "at least one row" in read_error(path).rule
    if suffix != "parquet":
        path.write_bytes(b"")
        assert "at least one row" in read_error(path).rule


@pytest.mark.parametrize("end", ['{"task": "sums", "que', '{"a": "é'.encode()[:-1].decode("latin-1"), "{"])
def test_a_last_line_that_breaks_off_is_named_or_left_out(end, tmp_path):
    """The hard negative: the same in the middle is refused either way, and a whole line without its end counts."""
    path = tmp_path / "it's.jsonl"
    path.write_bytes(json.dumps(ROW).encode() + b"\n" + end.encode("latin-1"))
    error = read_error(path)
    assert error.row == 2
    assert "the last line (2) breaks off" in error.rule
    assert """sed -i '$d' '""" in error.rule
    assert list(OutcomeTable.read(path, unfinished=True)) == [Outcome(**ROW)]
    path.write_bytes(path.read_bytes() + b"\n" + json.dumps({**ROW, "model": "b"}).encode())
    with pytest.raises(OutcomeError, match="line 2"):
        OutcomeTable.read(path, unfinished=True)
    path.write_bytes(json.dumps(ROW).encode())
    assert list(OutcomeTable.read(path)) == [Outcome(**ROW)]


def test_an_unfinished_file_may_hold_nothing_yet(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"")
    assert len(OutcomeTable.read(path, unfinished=True)) == 0


def test_a_json_list_is_named(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps([ROW]))
    assert "jq -c '.[]'" in read_error(path).rule


# ---- gzip and pipes


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "ndjson"])
def test_gzip_is_read_and_written(suffix, tmp_path):
    path = tmp_path / f"t.{suffix}.gz"
    OutcomeTable.from_outcomes([Outcome(**ROW)]).write(path)
    assert path.read_bytes()[:2] == b"\x1f\x8b"
    assert list(OutcomeTable.read(path)) == [Outcome(**ROW)]
    whole = path.read_bytes()
    for broken in (whole[:-9], whole[:-9] + b"x" * 9, b"task,query_id"):
        path.write_bytes(broken)
        assert "gzip" in read_error(path).rule
    assert ".gz" in read_error(tmp_path / "t.parquet.gz").rule


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet", "jsonl.gz", "csv.gz"])
@pytest.mark.parametrize("place", ["-", "pipe", "/dev/fd"])
def test_a_pipe_is_told_by_its_beginning(suffix, place, tmp_path, monkeypatch):
    path = tmp_path / f"t.{suffix}"
    OutcomeTable.from_outcomes([Outcome(**ROW)]).write(path)
    if place == "-":
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(path.read_bytes())))
        assert list(OutcomeTable.read("-")) == [Outcome(**ROW)]
        return
    if place == "/dev/fd":
        with path.open("rb") as source:
            assert list(OutcomeTable.read(f"/dev/fd/{source.fileno()}")) == [Outcome(**ROW)]
        return
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(path.read_bytes()))
    writer.start()
    assert list(OutcomeTable.read(pipe)) == [Outcome(**ROW)]
    writer.join()


def test_what_standard_input_lacks_is_named(monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"")))
    with pytest.raises(OutcomeError, match=r"file standard input: .*at least one row"):
        OutcomeTable.read("-")


# ---- columns of the user's own

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
@settings(max_examples=30)
@given(values=st.lists(json_values, min_size=1, max_size=4))
def test_columns_of_the_users_own_come_back_as_they_were(values, suffix, tmp_path_factory):
    """Whatever JSON they hold, of one type or of several."""
    path = tmp_path_factory.getbasetemp() / f"extras.{suffix}"
    rows = [
        Outcome(**{**ROW, "query_id": str(at)}, extras={} if value is None else {"mine": value})
        for at, value in enumerate(values)
    ]
    OutcomeTable.from_outcomes(rows).write(path)
    back = list(OutcomeTable.read(path))
    assert [row.extras for row in back] == [row.extras for row in rows]


def test_csv_holds_texts_of_them(tmp_path):
    rows = [Outcome(**{**ROW, "query_id": str(at)}, extras={"mine": value}) for at, value in enumerate([1, [2], "x"])]
    OutcomeTable.from_outcomes(rows).write(tmp_path / "t.csv")
    assert [row.extras["mine"] for row in OutcomeTable.read(tmp_path / "t.csv")] == ["1", "[2]", '"x"']


def test_files_with_different_columns_are_read_as_one_table(tmp_path):
    write_rows(tmp_path / "a.jsonl", {**ROW, "level": 1, "first": "x"})
    write_rows(tmp_path / "b.jsonl", {**ROW, "model": "b", "level": "hard"}, {**ROW, "model": "c"})
    table = OutcomeTable.read(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert [row.extras for row in table] == [{"level": 1, "first": "x"}, {"level": "hard"}, {}]
    table.write(tmp_path / "c.parquet")
    assert list(OutcomeTable.read(tmp_path / "c.parquet")) == list(table)


def test_a_parquet_type_that_no_other_format_has_is_named_and_left_out(tmp_path, caplog):
    arrays = {name: [value] for name, value in ROW.items()} | {
        "when": [datetime(2026, 1, 2, tzinfo=UTC)],
        "price": [Decimal("1.10")],
        "kind": pa.array(["easy"]).dictionary_encode(),
        "vector": [[0.5, 1.0]],
        "gap": [math.nan],
        "image": [b"x"],
        "took": [timedelta(1)],
    }
    pq.write_table(pa.table(arrays), tmp_path / "t.parquet")
    table = OutcomeTable.read(tmp_path / "t.parquet")
    (row,) = table
    assert row.extras.pop("when").startswith("2026-01-02 00:00:00")
    assert row.extras == {"price": "1.10", "kind": "easy", "vector": [0.5, 1.0]}
    assert "`image` (binary), `took` (duration" in caplog.text
    for suffix in SUFFIXES:
        table.write(tmp_path / f"u.{suffix}")
        assert len(OutcomeTable.read(tmp_path / f"u.{suffix}")) == 1


def test_a_field_of_an_outcome_is_no_column_of_the_users_own():
    with pytest.raises(OutcomeError, match="Rename it") as caught:
        OutcomeTable.from_outcomes([Outcome(**ROW, extras={"gold": "4"})])
    assert caught.value.column == "gold"
    with pytest.raises(OutcomeError, match="what JSON can hold") as caught:
        OutcomeTable.from_outcomes([Outcome(**ROW, extras={"mine": object()})])
    assert caught.value.column == "mine"
