"""Readers of tables: wide ones, with a column for each member, and long ones under other names."""

import ast
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from langchain_rlfocal.errors import OutcomeError
from langchain_rlfocal.importing.conversations import sent_of
from langchain_rlfocal.importing.files import parsed, rows_of
from langchain_rlfocal.importing.records import ReadTally, Record, Wanted, as_text, score

_NAMES = {
    "query": ("query", "prompt", "question", "input", "problem", "instruction", "messages", "text"),
    "query_id": ("query_id", "sample_id", "question_id", "prompt_id", "example_id", "id", "qid", "idx"),
    "task": ("task", "eval_name", "dataset", "benchmark", "subject", "category", "source"),
    "model": ("model", "model_name", "member", "llm", "system", "model_id"),
    "response": ("response", "model_response", "output", "completion", "generation", "model_output", "raw_answer"),
    "answer": ("answer", "prediction", "parsed_answer", "extracted_answer", "pred", "model_answer"),
    "gold": ("gold", "reference", "target", "ground_truth", "expected", "correct_answer", "gold_answer"),
    "reward": ("reward", "score", "correct", "is_correct", "accuracy", "grade", "performance"),
    "prompt_tokens": ("prompt_tokens", "input_tokens", "tokens_in"),
    "completion_tokens": ("completion_tokens", "output_tokens", "tokens_out"),
    "cost_usd": ("cost_usd", "cost", "total_cost", "price_usd"),
    "latency_s": ("latency_s", "latency", "duration_s", "elapsed_s"),
    "option_probs": ("option_probs",),
    "logprob": ("logprob",),
    "propensity": ("propensity",),
}
"""Under which names tables have the columns, most telling first."""

_PEEKED = 1000
_OF_MEMBER = {
    "total_cost": "cost_usd", "cost": "cost_usd", "cost_usd": "cost_usd", "model_response": "response", "response": "response",
    "output": "response", "answer": "answer", "score": "reward", "reward": "reward", "correct": "reward", "latency": "latency_s",
    "latency_s": "latency_s", "prompt_tokens": "prompt_tokens", "completion_tokens": "completion_tokens",
    "input_tokens": "prompt_tokens", "output_tokens": "completion_tokens",
}  # fmt: skip


def read_long(files: Sequence[Path], wanted: Wanted, tally: ReadTally) -> Iterator[Record]:
    """Read tables with a row for each member and question; columns that are none of the table's become extras."""
    for path in files:
        for spot, row in rows_of(path, tally):
            tally.read += 1
            places = _columns(row, wanted)
            given = {name: row.get(column) for name, column in places.items()}
            used = {*places.values(), *(path.partition(".")[0] for path in wanted.columns.values())}
            sent = sent_of(given.get("query"))
            reward = tally.measured("reward", given.get("reward"), spot, wanted)
            failed = (
                given.get("response") is None and given.get("answer") is None and reward == 0 and "response" in given
            )
            record = Record(
                spot=spot,
                model=wanted.model or as_text(given.get("model")),
                task=as_text(given.get("task")),
                query=sent.query if sent else None,
                messages=sent.messages if sent else (),
                query_id=as_text(given.get("query_id")) or None,
                response=as_text(given.get("response")),
                answer=as_text(given.get("answer")),
                gold=as_text(given.get("gold")),
                reward=reward,
                failure="recorded as one" if failed else None,
                option_probs=parsed(given.get("option_probs")) or None,
                extras={name: value for name, value in row.items() if name not in used},
                raw=row,
            )
            for name in ("prompt_tokens", "completion_tokens", "cost_usd", "latency_s", "logprob", "propensity"):
                setattr(record, name, tally.measured(name, given.get(name), spot, wanted))
            yield record


def read_wide(files: Sequence[Path], wanted: Wanted, tally: ReadTally) -> Iterator[Record]:
    """Read tables with a row for each question and a column for each member, of answers or of rewards.

    Beside a member's column `NAME` there may be others of it, as `NAME|total_cost` and `NAME|model_response` in RouterBench.
    """
    for path in files:
        rows = rows_of(path, tally)
        peeked = list(islice(rows, _PEEKED))
        if not peeked:
            continue
        names = list(peeked[0][1])
        places = _columns(peeked[0][1], wanted)
        members = _members(names, places, wanted, file=str(path))
        cells = [row.get(member) for _, row in peeked for member in members]
        beside = {column for name in names if (column := _of_member(name, members))}
        holds = wanted.values or _holds(cells, wanted, beside=beside, has_gold="gold" in places, file=str(path))
        of_members = {name for name in names if any(name == m or name.startswith(f"{m}|") for m in members)}
        for spot, row in chain(peeked, rows):
            given = {name: row.get(column) for name, column in places.items()}
            sent = sent_of(_unwrapped(given.get("query")))
            extras = {name: v for name, v in row.items() if name not in of_members and name not in places.values()}
            for member in members:
                tally.read += 1
                record = Record(
                    spot=spot,
                    model=member,
                    task=as_text(given.get("task")),
                    query=sent.query if sent else None,
                    messages=sent.messages if sent else (),
                    query_id=as_text(given.get("query_id")) or None,
                    gold=as_text(given.get("gold")),
                    extras=extras,
                    raw=row,
                )
                _fill(record, row, member, holds, wanted=wanted, tally=tally)
                if record.response is None and record.answer is None and record.reward is None:
                    tally.skip("an empty cell: the member was not asked", spot)
                else:
                    yield record


def _fill(record: Record, row: Mapping[str, Any], member: str, holds: str, *, wanted: Wanted, tally: ReadTally) -> None:
    value = row.get(member)
    if holds == "rewards":
        record.reward = tally.measured("reward", value, record.spot, wanted)
    elif value not in (None, ""):
        record.response = as_text(_unwrapped(value))
    for name in row:
        column = _of_member(name, [member])
        if column in {"response", "answer"}:
            setattr(record, column, as_text(_unwrapped(row[name])) or None)
        elif column is not None:
            setattr(record, column, tally.measured(column, row[name], record.spot, wanted))


def _of_member(name: str, members: Sequence[str]) -> str | None:
    """Say which of our columns a column `MEMBER|…` is."""
    member, bar, what = name.rpartition("|")
    return _OF_MEMBER.get(what.lower()) if bar and member in members else None


def _members(names: Sequence[str], places: Mapping[str, str], wanted: Wanted, *, file: str) -> list[str]:
    """Say which columns are members: those that the user names, or those with others beside them. No other looks like a member."""
    if wanted.members:
        unknown = [
            name for name in wanted.members if name not in names and not any(n.startswith(f"{name}|") for n in names)
        ]
        if unknown:
            rule = f"`--member` must name columns of the table, got {', '.join(unknown)}. It has: {', '.join(names)}."
            raise OutcomeError(rule, file=file)
        return list(wanted.members)
    paired = list(dict.fromkeys(name.partition("|")[0] for name in names if "|" in name))
    if paired:
        return paired
    others = [name for name in names if name not in places.values()]
    rule = f"`--member` must say which columns are members, once for each. The table has: {', '.join(others) or 'none besides'}."
    raise OutcomeError(rule, file=file)


def _holds(cells: Sequence[Any], wanted: Wanted, *, beside: Collection[str], has_gold: bool, file: str) -> str:
    """Say what the members' columns hold: answers if one of them can be no reward; rewards if nothing else is likely.

    Args:
        cells: What they hold in the first rows.
        wanted: What the user says.
        beside: What of them stands in columns of its own.
        has_gold: True if the table has right answers: numbers may be answers to compare with them.
        file: The table.

    Raises:
        OutcomeError: They may be either: 0 and 1, yes and no are answers as well as rewards.
    """
    low, high = wanted.scale or (0.0, 1.0)
    found = [score(cell, wanted.scale) for cell in cells if cell not in (None, "")]
    if "reward" in beside or any(value is None or not low <= value <= high for value in found):
        return "answers"
    if (
        {"response", "answer"} & set(beside)
        or wanted.scale
        or (not has_gold and any(low < value < high for value in found if value is not None))
    ):
        return "rewards"
    if not found:
        return "answers"
    rule = "`--values` must say what the members' columns hold, answers or rewards: what is in them may be either. Give `--values answers` or `--values rewards`."
    raise OutcomeError(rule, file=file)


def _columns(row: Mapping[str, Any], wanted: Wanted) -> dict[str, str]:
    """Say which column of a table is which of ours: what the user names, then ours, then what others call them."""
    found: dict[str, str] = {}
    lower = {name.lower().strip(): name for name in reversed(list(row))}
    taken = set(wanted.columns.values())
    for name, candidates in _NAMES.items():
        if name in wanted.columns:
            continue
        column = next((lower[c] for c in candidates if c in lower and lower[c] not in taken), None)
        if column is not None:
            found[name] = column
            taken.add(column)
    return found


def _unwrapped(value: Any) -> Any:
    """Take a text out of a list of one, which RouterBench writes as Python does."""
    if isinstance(value, str) and value.startswith(("['", '["')):
        try:
            inner = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return value
        if isinstance(inner, list) and len(inner) == 1 and isinstance(inner[0], str):
            return inner[0]
    return value
