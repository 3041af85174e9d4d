"""Traces: calls of models are taken, each by itself, with the scores that are its own."""

import csv
import io
import json

import pytest

from langchain_rlfocal.errors import OutcomeError


def brief(outcomes, *names):
    return [tuple(getattr(outcome, name) for name in names) for outcome in outcomes]


# ---- LangSmith (run format of its documentation)


def run(model, question, said, *, system="Be brief.", **changes):
    return {
        "id": f"run-{model}-{question}",
        "name": "ChatOpenAI",
        "run_type": "llm",
        "trace_id": "t1",
        "start_time": "2026-11-30T10:00:00+00:00",
        "end_time": "2026-11-30T10:00:01.500000+00:00",
        "inputs": {
            "messages": [
                [
                    {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", kind], "kwargs": {"content": text, "type": role}}
                    for kind, role, text in (("SystemMessage", "system", system), ("HumanMessage", "human", question))
                ]
            ]
        },
        "outputs": {
            "generations": [[{"text": said, "message": {"lc": 1, "id": ["x", "AIMessage"], "kwargs": {"content": said, "type": "ai"}}}]],
            "llm_output": {"token_usage": {"prompt_tokens": 9, "completion_tokens": 1}},
        },
        "extra": {"metadata": {"ls_model_name": model}},
        "error": None,
        "total_cost": 0.002,
    } | changes


def test_runs_of_langsmith_join_by_their_whole_conversation(imported, write):
    """The same question under two system prompts is two questions; a chain around a call is none."""
    rows = [
        run("ann", "2 + 3?", "5", feedback_stats={"correctness": {"n": 1, "avg": 1.0}}),
        run("bob", "2 + 3?", "6", feedback_stats={"correctness": {"n": 1, "avg": 0.0}}),
        run("ann", "2 + 3?", "five", system="Use words."),
        run("bob", "4 + 4?", None, error="429", outputs=None),
        {"run_type": "chain", "id": "c", "parent_run_id": "p", "inputs": {"question": "2 + 3?"}, "outputs": {"output": "5"}, "trace_id": "t1"},
    ]
    report, outcomes = imported("auto", write("runs.jsonl", rows))
    assert report.source == "langsmith"
    assert brief(outcomes, "query", "model", "response", "reward") == [
        ("2 + 3?", "ann", "5", 1.0),
        ("2 + 3?", "bob", "6", 0.0),
        ("2 + 3?", "ann", "five", None),
        ("4 + 4?", "bob", None, 0.0),
    ]
    first, second, third, _ = outcomes
    assert first.query_id == second.query_id != third.query_id
    assert brief(outcomes, "prompt_tokens", "completion_tokens", "cost_usd", "latency_s")[0] == (9, 1, 0.002, 1.5)
    assert third.extras["messages"] == [{"role": "system", "content": "Use words."}, {"role": "user", "content": "2 + 3?"}]
    assert report.skipped["no call of a model"][0] == 1


def test_experiments_of_langsmith_join_by_example(imported, write):
    """Two experiments on one example: two members, named as their experiments; the reference is the right answer."""
    example = {
        "id": "ex-1",
        "inputs": {"question": "2 + 3?"},
        "outputs": {"answer": "5"},
        "runs": [
            {"id": "r1", "run_type": "chain", "session_name": "ann-run", "outputs": {"output": "5"}, "feedback_stats": {"exact": {"avg": 1}}},
            {"id": "r2", "run_type": "chain", "session_name": "bob-run", "outputs": {"output": "6"}, "feedback_stats": {"exact": {"avg": 0}}},
        ],
    }
    _, outcomes = imported("langsmith", write("examples.json", [example]))
    assert brief(outcomes, "query_id", "query", "model", "response", "gold", "reward") == [
        ("ex-1", "2 + 3?", "ann-run", "5", "5", 1.0),
        ("ex-1", "2 + 3?", "bob-run", "6", "5", 0.0),
    ]


def test_a_csv_of_an_experiment(imported, write):
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["id", "inputs", "outputs", "reference_outputs", "status", "latency", "correctness"])
    writer.writerow(["ex-1", json.dumps({"question": "2 + 3?"}), json.dumps({"answer": "5"}), json.dumps({"answer": "5"}), "success", "0.5", "1.0"])
    _, (outcome,) = imported("auto", write("ann.csv", text.getvalue()))
    assert (outcome.query_id, outcome.query, outcome.model, outcome.response) == ("ex-1", "2 + 3?", "ann", "5")
    assert (outcome.gold, outcome.reward, outcome.latency_s) == ("5", 1.0, 0.5)


# ---- Langfuse (fields of its export to blob storage, and of its API)


def observation(name, trace, model, said, **changes):
    return {
        "id": name,
        "trace_id": trace,
        "type": "GENERATION",
        "start_time": "2026-11-30 10:00:00.000000",
        "end_time": "2026-11-30 10:00:02.000000",
        "level": "DEFAULT",
        "status_message": "",
        "input": json.dumps([{"role": "user", "content": "2 + 3?"}]),
        "output": json.dumps({"role": "assistant", "content": said}),
        "provided_model_name": model,
        "usage_details": {"input": 9, "output": 1, "total": 10},
        "cost_details": {"input": 0.001, "output": 0.002, "total": 0.003},
        "total_cost": 0.003,
        "latency": 2.0,
    } | changes


def test_observations_of_langfuse_take_their_scores_from_another_file(imported, write):
    """A score of an observation is its own, one of a trace is that of its only call; of two calls nobody knows which it praises."""
    observations = [
        observation("o1", "t1", "ann", "5"),
        observation("o2", "t2", "bob", "6"),
        observation("o3", "t3", "cid", "5"),
        observation("o4", "t3", "dee", "5"),
        observation("o5", "t4", "eve", None, level="ERROR", status_message="429 sk-abcdefghijkl", output=""),
        observation("o6", "t4", "", "x", type="SPAN"),
    ]
    scores = [
        {"id": "s1", "trace_id": "t1", "observation_id": "o1", "name": "correctness", "value": 1, "data_type": "NUMERIC"},
        {"id": "s2", "trace_id": "t2", "observation_id": None, "name": "correctness", "value": 0, "data_type": "BOOLEAN"},
        {"id": "s3", "trace_id": "t3", "observation_id": None, "name": "correctness", "value": 1, "data_type": "NUMERIC"},
        {"id": "s4", "trace_id": "t1", "observation_id": "o1", "name": "tone", "string_value": "kind", "value": None, "data_type": "CATEGORICAL"},
    ]
    report, outcomes = imported("langfuse", write("observations.jsonl", observations), write("scores.jsonl", scores))
    assert brief(outcomes, "model", "response", "reward") == [
        ("ann", "5", 1.0),
        ("bob", "6", 0.0),
        ("cid", "5", None),
        ("dee", "5", None),
        ("eve", None, 0.0),
    ]
    assert brief(outcomes, "prompt_tokens", "completion_tokens", "cost_usd", "latency_s")[0] == (9, 1, 0.003, 2.0)
    assert "abcdefghijkl" not in str(outcomes[4].extras)
    assert report.skipped["no call of a model"][0] == 1
    assert sum("several" in note for note in report.notes) == 1


def test_a_trace_of_langfuse_with_its_observations_inside_and_one_without(imported, write):
    """The API writes other names of the same fields."""
    inner = {
        "id": "o1", "traceId": "t1", "type": "GENERATION", "startTime": "2026-11-30T10:00:00.000Z", "endTime": "2026-11-30T10:00:01.000Z",
        "input": {"messages": [{"role": "user", "content": "2 + 3?"}]}, "output": "5", "model": "ann",
        "usageDetails": {"input": 9, "output": 1}, "costDetails": {}, "level": "DEFAULT",
    }  # fmt: skip
    traces = [
        {"id": "t1", "name": "sums", "observations": [inner], "scores": [{"traceId": "t1", "name": "stars", "value": 1}]},
        {"id": "t2", "name": "sums", "observations": [], "scores": []},
    ]
    report, (outcome,) = imported("auto", write("traces.json", {"data": traces}))
    assert (outcome.task, outcome.query, outcome.model, outcome.response, outcome.reward) == ("sums", "2 + 3?", "ann", "5", 1.0)
    assert (outcome.latency_s, outcome.cost_usd) == (1.0, None)
    assert list(report.skipped) == ["a trace without its observations: export those too"]


# ---- MLflow (traces of 3.17.2)


def test_traces_of_mlflow(imported, fixtures, write):
    """Three calls, each in an app's trace: one right, one wrong, one whose provider refused."""
    rows = [json.loads(line) for line in (fixtures / "mlflow_traces.jsonl").read_text().splitlines()]
    truth = {"ann": True, "bob": False}
    for row in rows:
        model = next(m for m in truth if f'\\"model\\": \\"{m}\\"' in json.dumps(row))
        value = {"assessment_name": "correct", "feedback": {"value": truth[model]}, "valid": True}
        expected = {"assessment_name": "expected_response", "expectation": {"value": "5"}}
        row["info"]["assessments"] = [value, expected] if row["info"]["state"] == "OK" else []
    _, outcomes = imported("auto", write("traces.jsonl", rows))
    assert brief(outcomes, "query", "model", "response", "gold", "reward", "prompt_tokens") == [
        ("What is 4 + 4?", "bob", None, None, 0.0, 9),
        ("What is 2 + 3?", "bob", "6", "5", 0.0, 9),
        ("What is 2 + 3?", "ann", "5", "5", 1.0, 9),
    ]
    assert outcomes[0].extras["failure"] == "ValueError: 429 too many"


def test_an_evaluation_table_of_mlflow(imported, write):
    rows = [
        {"inputs": {"question": "2 + 3?"}, "outputs": "5", "expectations": {"expected_response": "5"}, "correctness/value": "yes"},
        {"inputs": {"question": "4 + 4?"}, "outputs": "9", "expectations": {"expected_response": "8"}, "correctness/value": "no"},
    ]
    _, outcomes = imported("auto", write("ann.jsonl", rows), model="ann")
    assert brief(outcomes, "query", "model", "response", "gold", "reward") == [
        ("2 + 3?", "ann", "5", "5", 1.0),
        ("4 + 4?", "ann", "9", "8", 0.0),
    ]


def test_traces_without_a_call_of_a_model_are_refused_as_such(imported, write):
    rows = [{"info": {"trace_id": "t"}, "data": {"spans": [{"span_id": "s", "attributes": {"mlflow.spanType": '"CHAIN"'}}]}}]
    with pytest.raises(OutcomeError, match="a trace without a call of a model"):
        imported("mlflow", write("traces.jsonl", rows))
