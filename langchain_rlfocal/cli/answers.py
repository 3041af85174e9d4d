"""The table of `rlfocal answer`: what is answered is kept at once, and the table is written whole at the end."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from langchain_rlfocal.errors import OutcomeError

if TYPE_CHECKING:
    from langchain_rlfocal.outcomes import Question


class AnswerTable:
    """Answers by question, in a file and, until it is whole, in lines beside it; a context manager.

    Args:
        path: The table, a .parquet, .jsonl or .csv file; what it holds of these questions counts as answered.
        questions: What is asked.

    Raises:
        OutcomeError: The table cannot be read or written.

    Attributes:
        rows: What there is, by task and id.
    """

    def __init__(self, path: Path, questions: Sequence["Question"]) -> None:
        from langchain_rlfocal.outcomes.files import check_writable

        check_writable(path)
        self._path, self._questions = path, questions
        self._unfinished = path.with_name(f"{path.name}.unfinished.jsonl")
        self._lines: IO[str] | None = None
        self._failed: set[tuple[str, str]] = set()
        texts = {(question.task, question.query_id): question.query for question in questions}
        self.rows: dict[tuple[str, str], Mapping[str, Any]] = {}
        for row in [*_rows_in(path), *_lines_in(self._unfinished)]:
            key = (row["task"], row["query_id"])
            if texts.get(key, row["query"]) == row["query"] and (row["error"] is None or key not in self.rows):
                self.rows[key] = row

    @property
    def left(self) -> "list[Question]":
        """Questions without an answer."""
        rows = self.rows
        return [
            question
            for question in self._questions
            if (key := (question.task, question.query_id)) not in rows or rows[key]["error"] is not None
        ]

    @property
    def failed(self) -> int:
        """How many questions failed in this run."""
        return len(self._failed)

    def __enter__(self) -> Self:
        torn = self._unfinished.exists() and not self._unfinished.read_bytes().endswith(b"\n")
        self._lines = self._unfinished.open("a", encoding="utf-8")
        if torn:
            self._lines.write("\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lines is not None:
            self._lines.close()

    def add(self, question: "Question", answer: Mapping[str, Any]) -> None:
        """Keep what came of a question."""
        assert self._lines is not None, "answers are added within the context"
        key = (question.task, question.query_id)
        if (
            (known := self.rows.get(key)) is not None and known["error"] is None and answer["error"] is not None
        ):  # its batch was given out again
            return
        row = {"task": question.task, "query_id": question.query_id, "query": question.query, **answer}
        self.rows[key] = row
        (self._failed.discard if row["error"] is None else self._failed.add)(key)
        self._lines.write(json.dumps(row, ensure_ascii=True) + "\n")
        self._lines.flush()

    def write(self) -> dict[str, Any]:
        """Write the table, whole, in the order of the questions, then of others that it held; return what came of these questions."""
        import pyarrow as pa
        import pyarrow.csv
        import pyarrow.parquet

        from langchain_rlfocal.outcomes.files import written_whole

        keys = [(question.task, question.query_id) for question in self._questions]
        own = [self.rows[key] for key in keys if key in self.rows]
        others = [row for key, row in self.rows.items() if key not in set(keys)]
        rows = [{name: _written(value) for name, value in row.items()} for row in (*own, *others)]
        names = {"calls": pa.int64(), "prompt_tokens": pa.int64(), "completion_tokens": pa.int64()}
        names |= {"usd": pa.float64(), "seconds": pa.float64()}
        columns = list(rows[0]) if rows else []
        with written_whole(self._path) as sink:
            if self._path.suffix.lower() == ".jsonl":
                sink.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
            else:
                table = pa.Table.from_pylist(
                    rows, pa.schema([(name, names.get(name, pa.string())) for name in columns])
                )
                write = pa.csv.write_csv if self._path.suffix.lower() == ".csv" else pa.parquet.write_table
                write(table, sink)
        self._unfinished.unlink(missing_ok=True)
        answered = [row for row in own if row["error"] is None]
        return {
            "table": str(self._path),
            "answered": len(answered),
            "failed": len(own) - len(answered),
            "calls": sum(row["calls"] or 0 for row in answered),
            "usd": sum(row["usd"] or 0.0 for row in answered),
            "answers_without_price": sum(row["usd"] is None for row in answered),
        }


def _written(value: Any) -> Any:
    """Return a text as a file can hold it: half a surrogate pair, which a model may say, becomes a question mark."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _rows_in(path: Path) -> list[dict[str, Any]]:
    """Read a table of answers; nothing where there is none yet."""
    if not path.exists() or not path.stat().st_size:
        return []
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    try:
        match path.suffix.lower():
            case ".jsonl":
                rows = [*_lines_in(path)]
            case ".csv":
                names = ("task", "query_id", "query", "answer", "error", "members", "decision")
                texts = dict.fromkeys(names, pa.string())
                options = pa.csv.ConvertOptions(
                    column_types=texts, strings_can_be_null=True, quoted_strings_can_be_null=False
                )
                parsing = pa.csv.ParseOptions(newlines_in_values=True)
                rows = pa.csv.read_csv(path, parse_options=parsing, convert_options=options).to_pylist()
            case _:
                rows = pa.parquet.read_table(path).to_pylist()
        known = [row for row in rows if {"task", "query_id", "query", "error", "decision"} <= row.keys()]
    except (pa.ArrowException, AttributeError) as error:
        raise OutcomeError(f"must be a table of answers: {error}. Name another file.", file=str(path)) from error
    if len(known) < len(rows):
        raise OutcomeError(
            "must be a table of answers, as `rlfocal answer` writes it. Name another file.", file=str(path)
        )
    return known


def _lines_in(path: Path) -> Iterator[dict[str, Any]]:
    """Read JSON lines; one that broke off when the machine went down is left out."""
    if not path.exists():
        return
    for line in path.read_bytes().split(b"\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        yield row
