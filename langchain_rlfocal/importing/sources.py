"""Sources: what can be imported, and how its files are recognised by their shape."""

import re
import sqlite3
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

from langchain_rlfocal.answers import KindLike
from langchain_rlfocal.errors import InputError, OutcomeError
from langchain_rlfocal.importing.evaluations import HELM_FILES, read_helm, read_inspect, read_lm_eval, read_promptfoo
from langchain_rlfocal.importing.files import find_files, form_of, rows_of
from langchain_rlfocal.importing.frame import MAPPED, ImportReport, write_outcomes
from langchain_rlfocal.importing.records import ReadTally, Record, Wanted
from langchain_rlfocal.importing.tables import read_long, read_wide
from langchain_rlfocal.importing.traces import read_langfuse, read_langsmith, read_mlflow
from langchain_rlfocal.importing.usage import read_litellm, read_llm, read_openai_batch, read_openrouter
from langchain_rlfocal.outcomes.files import csv_lines, opened_text

AUTO = "auto"
"""The source that is recognised by its files."""

_HEAD_CHARS = 2**16


class Glimpse:
    """What a file looks like: its name, its beginning, and its first row, each read when it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path, self.form = path, form_of(path)

    @cached_property
    def head(self) -> str:
        """The beginning of a text file; empty for others."""
        try:
            with opened_text(self.path) as text:
                return text.read(_HEAD_CHARS)
        except OutcomeError:
            return ""

    @cached_property
    def row(self) -> Mapping[str, Any]:
        """The first row; empty where the file has none that can be read, or is one JSON object."""
        if (
            self.form == "json"
            and self.head.lstrip()[:1] == "{"
            and not re.match(r'\s*\{\s*"(data|traces|runs|observations|logs|items|info|trace)"', self.head)
        ):
            return {}
        try:
            return next((row for _, row in rows_of(self.path)), {})
        except OutcomeError:
            return {}

    @cached_property
    def names(self) -> list[str]:
        """The names of a CSV file's columns, repeated ones too."""
        try:
            return next((values for _, values in csv_lines(self.path)), []) if self.form == "csv" else []
        except OutcomeError:
            return []

    @cached_property
    def tables(self) -> set[str]:
        """The tables of an SQLite database."""
        with self.path.open("rb") as file:
            if file.read(15) != b"SQLite format 3":
                return set()
        try:
            with closing(sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True)) as database:
                return {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        except sqlite3.Error:
            return set()

    def has(self, *names: str) -> bool:
        """Tell whether the first row has all of these fields."""
        return all(name in self.row for name in names)

    def says(self, *names: str) -> bool:
        """Tell whether the beginning names all of these fields, as JSON does."""
        return self.form == "json" and all(f'"{name}"' in self.head for name in names)


@dataclass(frozen=True, slots=True)
class Source:
    """A program whose files can be imported.

    Attributes:
        name: What the command line calls it.
        title: What it is.
        read: Reads its files.
        fits: Tells its files from others.
        way_out: What to do where its files hold neither answers nor rewards.
    """

    name: str
    title: str
    read: Callable[[Sequence[Path], Wanted, ReadTally], Iterator[Record]]
    fits: Callable[[Glimpse], bool]
    way_out: str = ""


def _fits_promptfoo(file: Glimpse) -> bool:
    if file.form == "csv":
        return any(re.match(r"\[.+\]", name) for name in file.names)
    return file.has("provider", "vars", "success") or (
        file.says("results") and (file.says("evalId") or file.says("prompts", "version"))
    )


def _fits_langsmith(file: Glimpse) -> bool:
    if file.form == "csv" and file.has("inputs", "outputs") and not file.has("trace_id"):
        return True
    return file.has("inputs") and (file.has("run_type") or file.has("runs"))


def _fits_langfuse(file: Glimpse) -> bool:
    trace = file.has("traceId") or file.has("trace_id")
    if file.has("observations") or (file.has("trace", "observations")):
        return True
    is_observation = file.has("type") and (file.has("startTime") or file.has("start_time")) and not file.has("run_type")
    return trace and (is_observation or file.has("name", "value")) and not file.has("spans")


def _fits_mlflow(file: Glimpse) -> bool:
    if file.has("info", "data") or file.has("trace", "trace_id") or file.has("spans") or file.has("trace", "request"):
        return True
    return any(name.endswith(("/score", "/value")) for name in file.row)


def _fits_long(file: Glimpse) -> bool:
    names = {name.lower() for name in file.row}
    return bool(names & {"query", "prompt", "question", "input", "messages"}) and bool(
        names & {"model", "model_name", "member", "llm"}
    )


def _fits_wide(file: Glimpse) -> bool:
    names = {name.lower() for name in file.row}
    return bool(names & {"query", "prompt", "question", "input"}) and (
        any("|" in name for name in names) or not names & {"model", "model_name"}
    )


SOURCES: Mapping[str, Source] = {
    source.name: source
    for source in (
        Source("lm-eval", "lm-evaluation-harness: samples_<task>_<time>.jsonl", read_lm_eval, lambda f: f.has("doc", "resps"),
               "Run `lm_eval` with `--log_samples`."),
        Source("inspect", "inspect_ai: logs, .eval or .json", read_inspect,
               lambda f: f.form == "eval" or zipfile.is_zipfile(f.path) or f.says("eval", "plan"),
               "A log without samples says only how the run went: `inspect eval` without `--no-log-samples` writes them."),
        Source("promptfoo", "promptfoo: results, .json, .jsonl or .csv", read_promptfoo, _fits_promptfoo,
               "Run `promptfoo eval -o results.json` without PROMPTFOO_STRIP_… set."),
        Source("helm", "HELM: run folders", read_helm, lambda f: f.path.name.removesuffix(".gz") in HELM_FILES),
        Source("langsmith", "LangSmith: runs or experiments, .json, .jsonl, .csv or .parquet", read_langsmith, _fits_langsmith,
               "Export runs with their inputs and outputs."),
        Source("langfuse", "Langfuse: observations with scores, .json, .jsonl or .csv", read_langfuse, _fits_langfuse,
               "Export observations with the field groups `io` and `model`, and the scores beside them."),
        Source("mlflow", "MLflow: traces or evaluation tables, .json, .jsonl or .csv", read_mlflow, _fits_mlflow),
        Source("litellm", "litellm: spend logs, .json, .jsonl or .csv", read_litellm, lambda f: f.has("call_type") and (f.has("spend") or f.has("startTime")),
               "The proxy keeps prompts and answers only with `store_prompts_in_spend_logs: true` in its `general_settings`: set it, and "
               "import what it logs from then on."),
        Source("openrouter", "OpenRouter: activity, .csv", read_openrouter,
               lambda f: f.has("generation_id") or f.has("tokens_prompt") or f.has("model_permaslug") or f.has("byok_usage_inference"),
               "OpenRouter's activity holds costs and tokens only. Import what your own program logged, or ask the pool with `rlfocal collect`."),
        Source("llm", "simonw/llm: the database that `llm logs path` names", read_llm, lambda f: bool(f.tables & {"responses", "turns"})),
        Source("openai-batch", "OpenAI's batches: input, output and errors, .jsonl", read_openai_batch, lambda f: f.has("custom_id"),
               "Name the input file and the output file together."),
        Source("long", "a table with a row for each member and question", read_long, _fits_long,
               "Say which columns hold what, as in `--map query=prompt --map response=output`."),
        Source("wide", "a table with a column for each member", read_wide, _fits_wide, "Name the members' columns with `--member`."),
    )
}  # fmt: skip
"""Every source, by its name; what recognises a file first comes first."""


def import_outcomes(
    source: str,
    files: Sequence[str | PathLike[str]],
    out: str | PathLike[str],
    *,
    columns: Mapping[str, str] | None = None,
    reward: str | None = None,
    scale: tuple[float, float] | None = None,
    task: str | None = None,
    model: str | None = None,
    members: Sequence[str] = (),
    values: str | None = None,
    kind: KindLike | None = "auto",
    on_progress: Callable[[int], None] | None = None,
) -> ImportReport:
    """Import what another program recorded as a table of outcomes.

    Args:
        source: One of `SOURCES`, or `"auto"`: what the files look like.
        files: Files, patterns, or folders, whose files of other kinds are counted and left out.
        out: The table to write.
        columns: Which field of a row is which column, by the column's name; `a.b.0` leads into a field.
        reward: Which score is the reward, where there are several.
        scale: Least and greatest score, which become 0 and 1.
        task: The task of everything, instead of the program's.
        model: The member's name, instead of the program's.
        members: The columns of a wide table that are members; none needed where others such as `NAME|total_cost` stand beside them.
        values: `"answers"` or `"rewards"`, what the columns of a wide table hold; None: what they can only be.
        kind: What counts as the same answer where the program extracts none; None leaves those without a label.
        on_progress: Told how many rows were read, now and then.

    Raises:
        InputError: `source` is none, or an argument names what there is not.
        OutcomeError: A file cannot be read or is another program's, a wide table may be read in two ways, a reward lies outside its scale,
            or nothing could be kept.
    """
    if source != AUTO and source not in SOURCES:
        raise InputError(f"SOURCE must be one of {AUTO}, {', '.join(SOURCES)}, got {source!r}. Choose one.")
    unknown = [name for name in columns or {} if name not in MAPPED]
    if unknown:
        raise InputError(
            f"`--map` must name a column of the table ({', '.join(MAPPED)}), got {unknown[0]!r}. Correct it."
        )
    tally = ReadTally()
    found = find_files(files)
    chosen = SOURCES[source] if source != AUTO else _recognised(found)
    kept = _of_source(chosen, found, tally, trusting=bool(columns))
    wanted = Wanted(
        model=model, reward=reward, members=tuple(members), values=values, columns=dict(columns or {}), scale=scale
    )
    return write_outcomes(
        chosen.read(kept, wanted, tally),
        out,
        source=chosen.name,
        files=len(kept),
        tally=tally,
        wanted=wanted,
        task=task,
        scale=scale,
        kind=kind,
        way_out=chosen.way_out,
        on_progress=on_progress,
    )


def recognise(path: str | PathLike[str]) -> Source | None:
    """Say whose file this is, by its shape; None where it is nobody's."""
    file = Glimpse(Path(path))
    return next((source for source in SOURCES.values() if source.fits(file)), None)


def _recognised(found: Sequence[tuple[Path, bool]]) -> Source:
    """Say whose files these are: those of one source, beside others' in folders."""
    by_file = {path: recognise(path) for path, _ in found}
    named = [(path, by_file[path]) for path, is_named in found if is_named]
    unknown = next((path for path, source in named if source is None), None)
    if unknown is not None:
        raise OutcomeError(
            f"must be recognised by its shape, but is not. Name its source: {', '.join(SOURCES)}.", file=str(unknown)
        )
    sources = {source.name: path for path, source in by_file.items() if source is not None}
    if len(sources) != 1:
        shown = ", ".join(f"{name} ({path})" for name, path in sources.items()) or "of none that is known"
        raise OutcomeError(f"the files must be of one source, got {shown}. Name the source, and import each by itself.")
    return SOURCES[next(iter(sources))]


def _of_source(source: Source, found: Sequence[tuple[Path, bool]], tally: ReadTally, *, trusting: bool) -> list[Path]:
    """Keep the files of a source: one that was named and is another's is refused, one that a folder holds is left out."""
    kept = []
    for path, is_named in found:
        if not path.stat().st_size:
            if is_named:
                raise OutcomeError(
                    "the file must hold rows, got an empty file. Export it again, or leave it out.", file=str(path)
                )
            tally.note(f"file in a folder or pattern that is empty (first: {path})")
        elif source.fits(Glimpse(path)) or (trusting and is_named):
            kept.append(path)
        elif is_named:
            other = recognise(path)
            if other is not None and other.name not in {"long", "wide"}:
                rule = f"must be a file of {_short(source)}, but looks like one of {_short(other)}. Use `rlfocal import {other.name}`."
                raise OutcomeError(rule, file=str(path))
            if source.name not in {"long", "wide"}:
                _reason(path)
                rule = f"must be a file of {source.title}, got another. Check the path, or import a table with `long` or `wide` and `--map`."
                raise OutcomeError(rule, file=str(path))
            kept.append(path)
        else:
            tally.note(f"file in a folder or pattern that is not {source.name}'s")
    if not kept:
        others = sorted({other.name for path, _ in found if path.stat().st_size and (other := recognise(path))})
        looks = f", but of {', '.join(others)}" if others else ""
        raise OutcomeError(
            f"the folders and patterns must hold files of {source.title}, got none among {len(found)}{looks}. Check the paths."
        )
    return kept


def _short(source: Source) -> str:
    return source.title.partition(":")[0]


def _reason(path: Path) -> None:
    """Raise what makes a file unreadable, if that is why it is not recognised."""
    if form_of(path) in {"json", "jsonl", "csv", "parquet"}:
        next(rows_of(path), None)
