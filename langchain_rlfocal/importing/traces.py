"""Readers of traces: LangSmith, Langfuse, MLflow.

A trace holds steps of many kinds: those that call a model are taken, each for itself. A score on a whole trace counts for its only
call; of several calls nobody knows which one it praises.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_rlfocal.importing.conversations import received_of, sent_of, usage_of
from langchain_rlfocal.importing.files import field_at, form_of, parsed, rows_of
from langchain_rlfocal.importing.records import (
    ReadTally,
    Record,
    Spot,
    Wanted,
    as_object,
    as_text,
    chosen,
    number,
    seconds,
)

# ---- LangSmith

_LANGSMITH_FEEDBACK = ("correctness", "score", "accuracy", "correct", "exact_match", "user_score")


def read_langsmith(files: Sequence[Path], wanted: Wanted, tally: ReadTally) -> Iterator[Record]:
    """Read runs (JSON, JSONL or Parquet in LangSmith's run format), examples with their runs, and the CSV of an experiment."""
    for path in files:
        for spot, row in rows_of(path, tally):
            runs = parsed(row.get("runs"))
            if isinstance(runs, list):  # an example with the runs of one or several experiments
                for run in runs:
                    tally.read += 1
                    if isinstance(run, Mapping):
                        example = {
                            "reference_example_id": row.get("id"),
                            "inputs": row.get("inputs"),
                            "reference": row.get("outputs"),
                        }
                        yield from _langsmith_run({**example, **run}, spot, wanted, tally, is_experiment=True)
                continue
            tally.read += 1
            if form_of(path) == "csv" and "run_type" not in row and "name" not in row:
                yield _langsmith_line(row, path, spot, wanted)
            else:
                yield from _langsmith_run(row, spot, wanted, tally)


def _langsmith_run(
    run: Mapping[str, Any], spot: Spot, wanted: Wanted, tally: ReadTally, *, is_experiment: bool = False
) -> Iterator[Record]:
    example = run.get("reference_example_id")
    kind = run.get("run_type")
    is_root = not run.get("parent_run_id")
    if kind not in {None, "llm"} and not (is_root and (example or is_experiment)):
        tally.skip("no call of a model", spot)
        return
    metadata = field_at(run, "extra.metadata") or {}
    parameters = field_at(run, "extra.invocation_params") or {}
    named = (
        _first(metadata, "ls_model_name")
        or _first(parameters, "model", "model_name")
        or run.get("session_name")
        or run.get("session_id")
    )
    outputs, inputs = parsed(run.get("outputs")), parsed(run.get("inputs"))
    sent, reply = sent_of(inputs), received_of(outputs)
    started, ended = seconds(run.get("start_time")), seconds(run.get("end_time"))
    record = Record(
        spot=spot,
        model=wanted.model or as_text(named or run.get("name")),
        task=as_text(run.get("dataset_name")),
        query=sent.query if sent else None,
        messages=sent.messages if sent else (),
        query_id=as_text(example),
        names_question=bool(example),
        gold=_single(parsed(run.get("reference") or run.get("reference_outputs"))),
        prompt_tokens=number(run.get("prompt_tokens")),
        completion_tokens=number(run.get("completion_tokens")),
        cost_usd=number(run.get("total_cost")),
        latency_s=None if started is None or ended is None else ended - started,
        at=started,
        raw=run,
    )
    if record.prompt_tokens is None and isinstance(outputs, Mapping):
        record.prompt_tokens, record.completion_tokens = usage_of(
            field_at(outputs, "llm_output.token_usage")
            or field_at(outputs, "usage_metadata")
            or field_at(outputs, "usage")
        )
    if run.get("error") or run.get("status") == "error":
        record.failure = as_text(run.get("error")) or "error"
        yield record
        return
    if reply is not None:
        record.response, record.answer = reply.text, reply.calls
    feedback = parsed(run.get("feedback_stats"))
    scores = {}
    if isinstance(feedback, Mapping):
        scores = {
            name: stats.get("avg")
            for name, stats in feedback.items()
            if isinstance(stats, Mapping) and number(stats.get("avg")) is not None
        }
    name = chosen(scores, wanted, spot, preferred=_LANGSMITH_FEEDBACK)
    record.reward = None if name is None else number(scores[name])
    yield record


def _langsmith_line(row: Mapping[str, Any], path: Path, spot: Spot, wanted: Wanted) -> Record:
    """Read a line of an experiment's CSV: its inputs, outputs, reference outputs, and a column for each feedback."""
    known = {
        "id",
        "example_id",
        "inputs",
        "input",
        "outputs",
        "output",
        "reference_outputs",
        "reference_output",
        "reference",
        "error",
        "latency",
        "status",
        "tokens",
        "total_tokens",
        "prompt_tokens",
        "completion_tokens",
        "total_cost",
        "cost",
        "start_time",
        "end_time",
        "run_id",
        "session_id",
        "session_name",
        "model",
        "run",
        "experiment",
        "dataset_id",
        "created_at",
        "metadata",
    }
    sent = sent_of(_first(row, "inputs", "input"))
    reply = received_of(_first(row, "outputs", "output"))
    scores = {name: value for name, value in row.items() if name.lower() not in known and number(value) is not None}
    name = chosen(scores, wanted, spot, preferred=_LANGSMITH_FEEDBACK)
    latency = number(row.get("latency"))
    record = Record(
        spot=spot,
        model=wanted.model or _first(row, "model", "experiment", "session_name") or path.name.partition(".")[0],
        query=sent.query if sent else None,
        messages=sent.messages if sent else (),
        query_id=_first(row, "example_id", "id"),
        names_question=True,
        gold=_single(parsed(_first(row, "reference_outputs", "reference_output", "reference"))),
        prompt_tokens=number(row.get("prompt_tokens")),
        completion_tokens=number(row.get("completion_tokens")),
        cost_usd=number(_first(row, "total_cost", "cost")),
        latency_s=latency,
        raw=row,
    )
    if row.get("error"):
        record.failure = row["error"]
        return record
    if reply is not None:
        record.response, record.answer = reply.text or None, reply.calls
    record.reward = None if name is None else number(scores[name])
    return record


# ---- Langfuse

_CALLS = {"GENERATION", "generation"}


def read_langfuse(files: Sequence[Path], wanted: Wanted, tally: ReadTally) -> Iterator[Record]:
    """Read observations, with the scores that other files hold of them; traces with their observations inside, too.

    Fields are named as the export to blob storage has them (`trace_id`) or as the API does (`traceId`).
    """
    scores: dict[str, dict[str, Any]] = {}
    calls_of: dict[str, int] = {}
    for path in files:  # once for what belongs to other rows
        for _, row in rows_of(path):
            for one in _langfuse_scores(row):
                value = _first(one, "value", "numericValue", "numeric_value")
                kind = str(_first(one, "dataType", "data_type") or "")
                value = (
                    number(value)
                    if number(value) is not None
                    else {"True": 1.0, "False": 0.0}.get(str(_first(one, "stringValue", "string_value")))
                )
                key = _first(one, "observationId", "observation_id") or _first(one, "traceId", "trace_id")
                if key and value is not None and kind != "CATEGORICAL":
                    scores.setdefault(str(key), {})[str(one.get("name"))] = value
            for one in _langfuse_observations(row):
                if one.get("type") in _CALLS:
                    trace = str(_first(one, "traceId", "trace_id"))
                    calls_of[trace] = calls_of.get(trace, 0) + 1
    for path in files:
        for spot, row in rows_of(path, tally):
            if _is_langfuse_score(row):
                continue
            observations = list(_langfuse_observations(row))
            if not observations:
                tally.read += 1
                tally.skip("a trace without its observations: export those too", spot)
            for one in observations:
                tally.read += 1
                if one.get("type") not in _CALLS:
                    tally.skip("no call of a model", spot)
                    continue
                yield _langfuse_record(one, row, scores, calls_of, spot=spot, wanted=wanted, tally=tally)


def _langfuse_record(
    one: Mapping[str, Any],
    row: Mapping[str, Any],
    scores: Mapping[str, Mapping[str, Any]],
    calls_of: Mapping[str, int],
    *,
    spot: Spot,
    wanted: Wanted,
    tally: ReadTally,
) -> Record:
    trace = str(_first(one, "traceId", "trace_id"))
    sent, reply = sent_of(one.get("input")), received_of(parsed(one.get("output")) or None)
    usage = parsed(_first(one, "usageDetails", "usage_details", "usage"))
    costs = parsed(_first(one, "costDetails", "cost_details"))
    cost = number(_first(one, "calculatedTotalCost", "totalCost", "total_cost"))
    if cost is None and isinstance(costs, Mapping):
        cost = number(costs.get("total"))
    started, ended = seconds(_first(one, "startTime", "start_time")), seconds(_first(one, "endTime", "end_time"))
    prompt, completion = usage_of(usage)
    record = Record(
        spot=spot,
        model=wanted.model or _first(one, "model", "provided_model_name", "providedModelName") or None,
        task=_first(one, "trace_name", "traceName") or (row.get("name") if row is not one else None),
        query=sent.query if sent else None,
        messages=sent.messages if sent else (),
        prompt_tokens=prompt if prompt is not None else number(one.get("promptTokens")),
        completion_tokens=completion if completion is not None else number(one.get("completionTokens")),
        cost_usd=cost or None,  # it writes 0 where it knows no price
        latency_s=ended - started if started is not None and ended is not None else number(one.get("latency")),
        at=started,
        raw=one,
    )
    if one.get("level") == "ERROR":
        record.failure = as_text(_first(one, "statusMessage", "status_message")) or "error"
        return record
    if reply is not None:
        record.response, record.answer = reply.text, reply.calls
    own = dict(scores.get(str(one.get("id")), {}))
    if trace in scores:
        if calls_of.get(trace) == 1:
            own = {**scores[trace], **own}
        elif not own:
            tally.note("call of a trace with several, which a score praises or blames as a whole: it stays unscored")
    name = chosen(own, wanted, spot, preferred=("correctness", "score", "accuracy"))
    record.reward = None if name is None else number(own[name])
    return record


def _langfuse_observations(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    inner = parsed(row.get("observations"))
    whole = row.get("trace")
    if isinstance(whole, Mapping) and not isinstance(inner, list):
        inner = whole.get("observations")
    if isinstance(inner, list):
        yield from (one for one in inner if isinstance(one, Mapping))
    elif "type" in row and not _is_langfuse_score(row):
        yield row


def _langfuse_scores(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if _is_langfuse_score(row):
        yield row
    inner = parsed(row.get("scores"))
    if isinstance(inner, list):
        yield from (one for one in inner if isinstance(one, Mapping))


def _is_langfuse_score(row: Mapping[str, Any]) -> bool:
    return (
        ("value" in row or "stringValue" in row or "string_value" in row)
        and ("traceId" in row or "trace_id" in row)
        and "name" in row
    )


# ---- MLflow

_MLFLOW_CALLS = {"CHAT_MODEL", "LLM"}


def read_mlflow(files: Sequence[Path], wanted: Wanted, tally: ReadTally) -> Iterator[Record]:
    """Read traces (`Trace.to_json`, `Trace.to_dict`, a table of `mlflow.search_traces`) and evaluation tables of answers."""
    for path in files:
        for spot, row in rows_of(path, tally):
            info, data = parsed(row.get("info")), parsed(row.get("data"))
            flat = parsed(row.get("trace"))
            if isinstance(flat, Mapping):
                info, data = flat.get("info"), flat.get("data")
            spans = data.get("spans") if isinstance(data, Mapping) else parsed(row.get("spans"))
            if isinstance(spans, list):
                yield from _mlflow_trace(spans, info if isinstance(info, Mapping) else row, spot, wanted, tally)
            else:
                tally.read += 1
                yield _mlflow_line(row, path, spot, wanted)


def _mlflow_trace(
    spans: Sequence[Any], info: Mapping[str, Any], spot: Spot, wanted: Wanted, tally: ReadTally
) -> Iterator[Record]:
    opened = [(span, _attributes(span)) for span in spans if isinstance(span, Mapping)]
    calls = [(span, of) for span, of in opened if str(of.get("mlflow.spanType")) in _MLFLOW_CALLS]
    # One call may be two spans, a wrapper's and the client's: the inner one is the call.
    parents = {_first(span, "parent_span_id", "parent_id") for span, _ in calls}
    calls = [(span, of) for span, of in calls if _first(span, "span_id") not in parents]
    tally.read += max(len(calls), 1)
    if not calls:
        tally.skip("a trace without a call of a model", spot)
        return
    scores: dict[str, Any] = {}
    gold = None
    for assessment in parsed(info.get("assessments")) or ():
        name = str(_first(assessment, "assessment_name", "name"))
        value = field_at(assessment, "feedback.value")
        if value is not None and assessment.get("valid", True):
            truth = {"yes": 1.0, "no": 0.0, "pass": 1.0, "fail": 0.0}.get(str(value).lower(), value)
            if number(truth) is not None:
                scores[name] = number(truth)
        expected = field_at(assessment, "expectation.value")
        if expected is not None and name in {"expected_response", "expected", "answer", "expected_answer"}:
            gold = as_text(expected)
    if len(calls) > 1 and scores:
        tally.note(
            "call of a trace with several, which a score praises or blames as a whole: it stays unscored", len(calls)
        )
        scores = {}
    chosen_name = chosen(scores, wanted, spot, preferred=("correctness", "correct", "score"))
    for span, of in calls:
        inputs, outputs = of.get("mlflow.spanInputs"), of.get("mlflow.spanOutputs")
        sent, reply = sent_of(inputs), received_of(outputs)
        prompt, completion = usage_of(of.get("mlflow.chat.tokenUsage"))
        started, ended = (
            seconds(_first(span, f"{which}_time_unix_nano", f"{which}_time")) for which in ("start", "end")
        )
        record = Record(
            spot=spot,
            model=wanted.model
            or as_text(
                _first(of, "mlflow.llm.model")
                or field_at(as_object(inputs), "model")
                or field_at(as_object(outputs), "model")
            ),
            query=sent.query if sent else None,
            messages=sent.messages if sent else (),
            gold=gold if len(calls) == 1 else None,
            prompt_tokens=prompt,
            completion_tokens=completion,
            cost_usd=number(field_at(of, "mlflow.llm.cost.total_cost")),
            latency_s=None if started is None or ended is None else ended - started,
            at=started,
            raw={**info, **span},
        )
        status = span.get("status") or span.get("status_code")
        code = status.get("code") if isinstance(status, Mapping) else status
        if "ERROR" in str(code):
            record.failure = as_text(field_at(span, "status.message")) or "error"
        else:
            if reply is not None:
                record.response, record.answer = reply.text, reply.calls
            record.reward = None if chosen_name is None else scores[chosen_name]
        yield record


def _mlflow_line(row: Mapping[str, Any], path: Path, spot: Spot, wanted: Wanted) -> Record:
    """Read a row of an evaluation table: inputs, outputs or predictions, expectations or targets, and its scores."""
    sent = sent_of(_first(row, "inputs", "request", "input", "question"))
    reply = received_of(_first(row, "outputs", "response", "predictions", "prediction", "output"))
    scores = {}
    for name, value in row.items():
        stem = name.removesuffix("/score").removesuffix("/value")
        if stem != name:
            truth = {"yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0}.get(str(value).lower(), value)
            if number(truth) is not None:
                scores[stem] = number(truth)
    reward = chosen(scores, wanted, spot, preferred=("correctness", "exact_match"))
    expected = parsed(_first(row, "expectations", "targets", "target", "ground_truth", "expected_response"))
    return Record(
        spot=spot,
        model=wanted.model or as_text(_first(row, "model", "run_name", "run_id")) or path.name.partition(".")[0],
        query=sent.query if sent else None,
        messages=sent.messages if sent else (),
        response=reply.text if reply else None,
        answer=reply.calls if reply else None,
        gold=_single(expected),
        reward=None if reward is None else number(scores[reward]),
        raw=row,
    )


def _attributes(span: Mapping[str, Any]) -> dict[str, Any]:
    """Return a span's attributes, each of which is JSON within JSON."""
    found = span.get("attributes")
    result = {}
    for name, value in (as_object(found)).items():
        result[name] = value
        if isinstance(value, str):
            try:
                result[name] = json.loads(value)
            except ValueError:
                result[name] = value
    return result


def _object(value: Any) -> Mapping[str, Any]:
    return as_object(value)


def _first(row: Any, *names: str) -> Any:
    """Return the first of these fields that says something."""
    return (
        next((row[name] for name in names if row.get(name) not in (None, "")), None)
        if isinstance(row, Mapping)
        else None
    )


def _single(value: Any) -> str | None:
    """Return a right answer: a text, or the only value of an object."""
    if isinstance(value, Mapping):
        values = [part for part in value.values() if part is not None]
        return as_text(
            value.get("answer", value.get("output", value.get("expected_response")))
            or (values[0] if len(values) == 1 else None)
        )
    return as_text(value) if value != "" else None
