"""Readers of evaluation programs: lm-evaluation-harness, inspect_ai, promptfoo, HELM. Each knows its questions by name."""

import io
import json
import math
import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa

from langchain_rlfocal.errors import OutcomeError
from langchain_rlfocal.importing.conversations import received_of, sent_of, text_of, usage_of
from langchain_rlfocal.importing.files import form_of, read_json, rows_of
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
from langchain_rlfocal.outcomes.files import csv_lines

# ---- lm-evaluation-harness

_LM_METRICS = (
    "exact_match",
    "acc",
    "pass@1",
    "pass_at_1",
    "prompt_level_strict_acc",
    "em",
    "f1",
    "score",
    "acc_norm",
    "acc_bytes",
)
_LM_OTHERS = {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"}
_LM_LENGTHS: Mapping[str | None, Callable[[str], int]] = {"acc_norm": len, "acc_bytes": lambda text: len(text.encode())}
"""By what a metric divides an option's log-likelihood before it takes the greatest."""
_LM_QUESTIONS = ("question", "query", "problem", "prompt", "input", "text", "goal", "sentence")


def read_lm_eval(files: Sequence[Path], wanted: Wanted, tally: ReadTally) -> Iterator[Record]:
    """Read `samples_<task>_<time>.jsonl` files, as `--log_samples` writes them in a folder for each model.

    A multiple choice becomes the letter of the option that the metric judged, with the options' probabilities; so does the right
    answer.
    """
    for path in files:
        match = re.fullmatch(r"samples_(?P<task>.+?)_(?P<time>\d{4}-\d\d-\d\dT[\d\-.:]+)\.jsonl?(?:\.gz)?", path.name)
        task = match["task"] if match else path.name.removeprefix("samples_").partition(".")[0]
        model = wanted.model or _lm_model(path, match["time"] if match else None)
        first_filter: str | None = None
        metric, _, filter_name = (wanted.reward or "").partition(",")
        of_metric = replace(wanted, reward=metric or None)
        for spot, row in rows_of(path, tally):
            tally.read += 1
            used = str(row.get("filter", "none"))
            first_filter = filter_name or first_filter or used
            if used != first_filter:
                tally.skip(f"of another filter: `--reward METRIC,{used}` takes it", spot)
                continue
            named = row.get("metrics")  # newer versions list them
            names = named if isinstance(named, list) else [name for name in row if name not in _LM_OTHERS]
            scores = {name: row[name] for name in names if isinstance(row.get(name), bool | int | float)}
            filtered = row.get("filtered_resps")
            logs = _loglikelihoods(filtered) if isinstance(filtered, list) else None
            # Of options, an exact match asks whether the right one is what the model would have written, not which it chose.
            preferred = ("acc", *_LM_METRICS) if logs else _LM_METRICS
            name = chosen(scores, of_metric, spot, preferred=preferred)
            doc = as_object(row.get("doc"))
            calls = _lm_calls(row.get("arguments"))
            record = Record(
                spot=spot,
                model=model,
                task=task,
                query=_lm_query(doc, calls),
                query_id=str(row["doc_id"]) if "doc_id" in row else row.get("doc_hash"),
                names_question=True,
                document=as_text(row.get("doc_hash")) or _doc_hash(row.get("doc")),
                gold=as_text(row.get("target")),
                reward=None if name is None else number(scores[name]),
                raw=row,
            )
            if logs is None:
                _lm_answer(record, row)
            else:
                _lm_choice(record, row, calls=calls, logs=logs, metric=name, tally=tally)
            yield record


def _lm_answer(record: Record, row: Mapping[str, Any]) -> None:
    """Fill in what the model wrote, and what the filter took out of it."""
    answers, filtered = row.get("resps"), row.get("filtered_resps")
    first = answers[0] if isinstance(answers, list) and answers else None
    while isinstance(first, list) and first:
        first = first[0]
    record.response = as_text(first)
    taken = filtered[0] if isinstance(filtered, list) and filtered else None
    record.answer = as_text(taken[0] if isinstance(taken, list) and taken else taken)
    if isinstance(record.answer, str):
        record.answer = record.answer.strip() or None


def _lm_choice(
    record: Record,
    row: Mapping[str, Any],
    *,
    calls: Sequence[Sequence[Any]],
    logs: Sequence[float],
    metric: str | None,
    tally: ReadTally,
) -> None:
    """Fill in which option the metric judged: that of the greatest log-likelihood, which some divide by the option's length.

    The reward says whether that option is right. Where it cannot be (another metric took another option), which one was judged is not
    known: answer and right answer stay open.
    """
    prompts = {str(call[0]) for call in calls if call}
    if len(logs) < 2 or len(logs) != len(calls) or len(prompts) > 1 or any(len(call) < 2 for call in calls):
        return  # a single likelihood chooses nothing, and options with prompts of their own are a Winograd schema
    record.gold = None
    options = [str(call[1]).strip() for call in calls]
    doc = row.get("doc")
    texts = doc.get("choices") if isinstance(doc, Mapping) and all(len(option) == 1 for option in options) else options
    if record.query is not None and isinstance(texts, list) and len(texts) == len(options):
        record.query = "\n".join([record.query, *(f"{_letter(index)}) {text}" for index, text in enumerate(texts))])
    length = _LM_LENGTHS.get(metric)
    worth = [log / (max(length(option), 1) if length else 1) for log, option in zip(logs, options, strict=True)]
    choice = max(range(len(worth)), key=worth.__getitem__)
    is_right = record.reward == 1.0 if record.reward in {0.0, 1.0} and metric != "brier_score" else None
    readings = _lm_readings(row.get("target"), options)
    borne_out = {places for places in readings if is_right is None or (choice in places) == is_right}
    if readings and not borne_out:
        tally.note(f"{metric} of another option than the likeliest: which one is not known, and is left open")
        return
    weights = [math.exp(value - max(worth)) for value in worth]
    record.option_probs = [weight / sum(weights) for weight in weights]
    record.answer, record.response = _letter(choice), options[choice]
    if is_right and all(len(places) == 1 for places in borne_out):
        record.gold = _letter(choice)
    elif len(borne_out) == 1 and len(next(iter(borne_out))) == 1:
        record.gold = _letter(*next(iter(borne_out)))


def _lm_readings(target: Any, options: Sequence[str]) -> set[frozenset[int]]:
    """Say which options a target may mean: it names them by place or by text, and "0" may be either."""
    names = [str(name).strip() for name in (target if isinstance(target, list) else [target])]
    found = set()
    if all(name.isdecimal() and int(name) < len(options) for name in names):
        found.add(frozenset(int(name) for name in names))
    if all(name in options for name in names):
        found.add(frozenset(options.index(name) for name in names))
    return found - {frozenset()}


def _lm_model(path: Path, time: str | None) -> str:
    """Name the model of a samples file: as the results beside it do, else as its folder is called."""
    results = sorted(path.parent.glob(f"results_{time}.json") if time else ()) or sorted(
        path.parent.glob("results_*.json")
    )
    for file in results[-1:]:
        found = read_json(file)
        name = found.get("model_name") if isinstance(found, Mapping) else None
        if isinstance(name, str) and name:
            return name
    return path.resolve().parent.name.replace("__", "/")


def _doc_hash(doc: Any) -> str | None:
    """Return the digest that newer versions write beside a document."""
    if doc is None:
        return None
    return sha256(json.dumps(doc, indent=2, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()


def _lm_calls(arguments: Any) -> list[list[Any]]:
    """Return what was asked, call by call: lists in older versions, named arguments in newer ones."""
    if isinstance(arguments, Mapping):
        return [list(call.values()) if isinstance(call, Mapping) else [call] for call in arguments.values()]
    if isinstance(arguments, list):
        return [call if isinstance(call, list) else [call] for call in arguments]
    return []


def _lm_query(doc: Mapping[str, Any], calls: Sequence[Sequence[Any]]) -> str | None:
    """Prefer the document's own question to the prompt, which holds examples and a model's template."""
    for name in _LM_QUESTIONS:
        if isinstance(doc.get(name), str) and doc[name].strip():
            return str(doc[name])
    prompt = calls[0][0] if calls and calls[0] else None
    return prompt if isinstance(prompt, str) else None


def _loglikelihoods(filtered: Sequence[Any]) -> list[float] | None:
    """Read pairs of log-likelihood and whether it is the greedy one; newer versions write them as texts."""
    found = []
    for pair in filtered:
        if not (isinstance(pair, list) and len(pair) == 2 and str(pair[1]) in {"True", "False", "true", "false"}):
            return None
        value = number(pair[0])
        if value is None:
            return None
        found.append(value)
    return found or None


# ---- inspect_ai

_INSPECT_VALUES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0, "yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0}
_ZSTANDARD = 93


def read_inspect(files: Sequence[Path], wanted: Wanted, tally: ReadTally) -> Iterator[Record]:
    """Read logs of inspect_ai, `.eval` and `.json`. Further epochs are further samples of a question."""
    for path in files:
        header, samples = _inspect_log(path, tally)
        about = as_object(header.get("eval"))
        for spot, sample in samples:
            tally.read += 1
            yield _inspect_record(sample, about, spot, wanted, tally)


def _inspect_record(
    sample: Mapping[str, Any], about: Mapping[str, Any], spot: Spot, wanted: Wanted, tally: ReadTally
) -> Record:
    output = as_object(sample.get("output"))
    sent = sent_of(sample.get("input"))
    query, messages = (sent.query, sent.messages) if sent else (None, ())
    options = sample.get("choices")
    if query is not None and isinstance(options, list) and options:
        query = "\n".join([query, *(f"{_letter(index)}) {option}" for index, option in enumerate(options))])
    failed = sample.get("error")
    asked = output.get("choices") or output.get("completion")
    record = Record(
        spot=spot,
        model=wanted.model or str(about.get("model") or output.get("model") or ""),
        task=as_text(about.get("task_registry_name") or about.get("task")),
        query=query,
        messages=messages,
        query_id=as_text(
            sample.get("id")
        ),  # of two versions of the data one id may be two questions: the text decides, too
        sample=max(int(number(sample.get("epoch")) or 1) - 1, 0),
        gold=as_text(sample.get("target")),
        latency_s=number(sample.get("working_time") or output.get("time")),
        at=seconds(sample.get("started_at")),
        raw=sample,
    )
    usage = _total_usage(sample.get("model_usage"), about.get("model")) or output.get("usage")
    record.prompt_tokens, record.completion_tokens = usage_of(usage)
    if isinstance(failed, Mapping) and not sample.get("scores"):
        record.failure = str(failed.get("message") or "error")
        return record
    reply = received_of(output) if asked else None
    record.response = reply.text if reply else None
    scores = as_object(sample.get("scores"))
    scores = scores or ({"score": sample["score"]} if isinstance(sample.get("score"), Mapping) else {})
    values: dict[str, tuple[Any, Mapping[str, Any]]] = {}
    for scorer, score in scores.items():
        value = as_object(score).get("value")
        if isinstance(value, Mapping):
            values |= {f"{scorer}/{key}": (part, score) for key, part in value.items()}
        elif isinstance(score, Mapping):
            values[str(scorer)] = value, score
    name = chosen(values, wanted, spot)
    if name is not None:
        value, score = values[name]
        graded = _INSPECT_VALUES.get(value, value) if isinstance(value, str) else value
        record.reward = tally.measured("reward", graded, spot, wanted)
        answer = score.get("answer")
        record.answer = answer.strip() or None if isinstance(answer, str) else None
        record.answer = record.answer if record.answer != record.response else None
    record.answer = record.answer or (reply.calls if reply else None)
    return record


def _total_usage(usage: Any, model: Any) -> Any:
    """Return the tokens of the evaluated model alone: graders are counted beside it."""
    return usage.get(model) if isinstance(usage, Mapping) else None


def _inspect_log(path: Path, tally: ReadTally) -> tuple[Mapping[str, Any], Iterator[tuple[Spot, Mapping[str, Any]]]]:
    if not zipfile.is_zipfile(path):
        if path.suffix == ".eval":
            raise OutcomeError(
                "must be a whole .eval archive. The run may have been cut off: copy it again.", file=str(path)
            )
        whole = read_json(path)
        if not isinstance(whole, Mapping) or not isinstance(whole.get("eval"), Mapping):
            raise OutcomeError("must be a log of inspect_ai. Check the path.", file=str(path))
        samples = whole.get("samples") or []
        return whole, ((Spot(str(path), at), s) for at, s in enumerate(samples, 1) if isinstance(s, Mapping))
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    start = next((name for name in ("header.json", "_journal/start.json") if name in names), None)
    if start is None:
        raise OutcomeError(
            "must be a log of inspect_ai, got an archive without a header. Check the path.", file=str(path)
        )
    if start != "header.json":
        tally.note("log of a run that did not end: its samples so far were read")

    def samples_of() -> Iterator[tuple[Spot, Mapping[str, Any]]]:
        for name in names:
            if name.startswith("samples/") and name.endswith(".json"):
                found = _entry(path, name)
                if isinstance(found, Mapping):
                    yield Spot(f"{path}/{name}"), found

    return _entry(path, start), samples_of()


def _entry(path: Path, name: str) -> Any:
    """Read one JSON entry of an archive, also where it is compressed by Zstandard, which `zipfile` reads from Python 3.14 on."""
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as raw:
            info = archive.getinfo(name)
            if info.compress_type != _ZSTANDARD:
                return json.loads(archive.read(name))
            raw.seek(info.header_offset + 26)
            skipped = sum(struct.unpack("<HH", raw.read(4)))  # the lengths of the entry's name and of its extra field
            raw.seek(skipped, io.SEEK_CUR)
            data = pa.BufferReader(raw.read(info.compress_size))
            with pa.CompressedInputStream(data, "zstd") as stream:
                return json.loads(stream.read())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile, pa.ArrowException, struct.error) as error:
        rule = f"the entry {name} must be readable, got: {error}. `inspect log convert --to json` makes a file that is."
        raise OutcomeError(rule, file=str(path)) from error


# ---- promptfoo


def read_promptfoo(files: Sequence[Path], wanted: Wanted, tally: ReadTally) -> Iterator[Record]:
    """Read results of promptfoo: JSON of its versions 2 and 3, JSON lines, and CSV."""
    for path in files:
        if form_of(path) == "csv":
            yield from _promptfoo_csv(path, wanted, tally)
        elif form_of(path) == "jsonl":
            for spot, row in rows_of(path, tally):
                tally.read += 1
                yield _promptfoo_record(row, None, spot, wanted)
        else:
            whole = read_json(path)
            results = whole.get("results") if isinstance(whole, Mapping) else None
            rows = results.get("results") if isinstance(results, Mapping) else results
            if not isinstance(rows, list):
                raise OutcomeError("must hold the results of promptfoo. Check the path.", file=str(path))
            config = whole.get("config")
            task = config.get("description") if isinstance(config, Mapping) else None
            for at, row in enumerate(rows, start=1):
                tally.read += 1
                if isinstance(row, Mapping):
                    yield _promptfoo_record(row, as_text(task), Spot(str(path), at), wanted)
                else:
                    tally.skip("no result", Spot(str(path), at))


def _promptfoo_record(row: Mapping[str, Any], task: str | None, spot: Spot, wanted: Wanted) -> Record:
    provider = row.get("provider")
    model = (provider.get("label") or provider.get("id")) if isinstance(provider, Mapping) else provider
    prompt = row.get("prompt")
    sent = sent_of(prompt.get("raw") if isinstance(prompt, Mapping) else prompt)
    response = as_object(row.get("response"))
    test = as_object(row.get("testCase"))
    output = response.get("output")
    named = as_object(row.get("namedScores"))
    scored = chosen(named, wanted, spot) if wanted.reward else None
    reward = named[scored] if scored else None if wanted.reward else row.get("score", row.get("success"))
    error = response.get("error") or (row.get("error") if output is None else None)
    latency = number(row.get("latencyMs"))
    record = Record(
        spot=spot,
        model=wanted.model or as_text(model),
        query=sent.query if sent else None,
        messages=sent.messages if sent else (),
        task=task,
        gold=_promptfoo_gold(test),
        latency_s=None if latency is None or response.get("cached") is True else latency / 1000,
        cost_usd=number(row.get("cost")) or None,  # it writes 0 where it knows no price
        raw=row,
    )
    usage = response.get("tokenUsage") or row.get("tokenUsage")
    if isinstance(usage, Mapping):
        record.prompt_tokens = number(usage.get("prompt")) or None
        record.completion_tokens = number(usage.get("completion")) or None
    if error and output is None:
        record.failure = str(error)
        return record
    record.response = output if isinstance(output, str) or output is None else json.dumps(output, ensure_ascii=False)
    record.reward = number(reward)
    return record


def _promptfoo_gold(test: Mapping[str, Any]) -> str | None:
    """Take the value of a test's only assertion for equality."""
    asserts = test.get("assert")
    values = (
        [a.get("value") for a in asserts if isinstance(a, Mapping) and a.get("type") == "equals"]
        if isinstance(asserts, list)
        else []
    )
    return as_text(values[0]) if len(values) == 1 else None


def _promptfoo_csv(path: Path, wanted: Wanted, tally: ReadTally) -> Iterator[Record]:
    """Read the table: a row is a test, a column `[provider] prompt` an output, in newer versions with its score beside it."""
    lines = csv_lines(path)
    _, names = next(lines, (0, []))
    outputs = [
        (index, match["model"], match["prompt"])
        for index, name in enumerate(names)
        if (match := re.fullmatch(r"\[(?P<model>.+?)\]\s*(?P<prompt>.*)", name, re.DOTALL))
    ]
    if not outputs:
        raise OutcomeError(
            "must have a column `[provider] prompt` for each output. Export the table of promptfoo.", file=str(path)
        )
    for line, values in lines:
        spot = Spot(str(path), line)
        given = {
            name: value for name, value in zip(names[: outputs[0][0]], values, strict=False) if name != "Description"
        }
        for index, model, prompt in outputs:
            tally.read += 1
            query = re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match, given=given: given.get(match[1], match[0]), prompt)
            sent = sent_of(query)
            record = Record(
                spot=spot,
                model=wanted.model or model,
                query=sent.query if sent else None,
                messages=sent.messages if sent else (),
                raw=given,
            )
            beside = dict(zip(names[index + 1 : index + 4], values[index + 1 : index + 4], strict=False))
            text = values[index] if index < len(values) else ""
            if "Status" in beside:
                status, score = beside["Status"], beside.get("Score")
            else:
                old = re.match(r"\[(?P<status>PASS|FAIL|ERROR)\](?:\s*\((?P<score>[\d.]+)[^)]*\))?\s*", text)
                if old is None:
                    tally.skip("no output of promptfoo", spot)
                    continue
                status, score, text = old["status"], old["score"], text[old.end() :]
                text = re.sub(r"\n+(?:Pass|Fail) Reason: .*\Z", "", text, flags=re.DOTALL)
            if status.upper() == "ERROR":
                record.failure = text or "error"
            else:
                record.response = text
                found = number(score)
                record.reward = float(status.upper() == "PASS") if found is None else found
            yield record


# ---- HELM

_HELM_METRICS = (
    "exact_match",
    "quasi_exact_match",
    "prefix_exact_match",
    "quasi_prefix_exact_match",
    "math_equiv_chain_of_thought",
    "math_equiv",
    "final_number_exact_match",
    "f1_score",
    "chain_of_thought_correctness",
    "ifeval_strict_accuracy",
)
HELM_FILES = ("scenario_state.json", "per_instance_stats.json", "run_spec.json")


def read_helm(files: Sequence[Path], wanted: Wanted, tally: ReadTally) -> Iterator[Record]:
    """Read run folders of HELM: scenario_state.json, with the scores of per_instance_stats.json beside it."""
    folders = dict.fromkeys(path.parent for path in files)
    for folder in folders:
        state_file = next(
            (folder / name for name in (HELM_FILES[0], f"{HELM_FILES[0]}.gz") if (folder / name).exists()), None
        )
        if state_file is None:
            raise OutcomeError("a run folder of HELM must hold scenario_state.json. Name the folder.", file=str(folder))
        state = read_json(state_file)
        adapter = state.get("adapter_spec") if isinstance(state, Mapping) else None
        rows = state.get("request_states") if isinstance(state, Mapping) else None
        if not isinstance(adapter, Mapping) or not isinstance(rows, list):
            raise OutcomeError("must be a scenario_state.json of HELM. Check the path.", file=str(state_file))
        stats = _helm_stats(folder, tally)
        spec = read_json(folder / HELM_FILES[2]) if (folder / HELM_FILES[2]).exists() else {}
        run = str(spec.get("name") or folder.name)
        task = re.sub(r",?\bmodel=[^,]*|,?\bmodel_deployment=[^,]*", "", run).replace(":,", ":").rstrip(":,")
        seen: set[tuple[str, int]] = set()
        for at, row in enumerate(rows, start=1):
            spot = Spot(str(state_file), at)
            tally.read += 1
            if not isinstance(row, Mapping) or not isinstance(row.get("instance"), Mapping):
                tally.skip("no request", spot)
                continue
            instance = row["instance"]
            if instance.get("perturbation"):
                tally.skip("of a perturbed instance", spot)
                continue
            if row.get("request_mode") == "calibration" or row.get("reference_index") is not None:
                tally.skip("asks for the likelihood of one reference", spot)
                continue
            key = str(instance.get("id")), int(row.get("train_trial_index") or 0)
            if key in seen:
                tally.skip("a second request of the instance", spot)
                continue
            seen.add(key)
            yield _helm_record(row, instance, adapter, task=task, stats=stats.get(key), spot=spot, wanted=wanted)


def _helm_record(
    row: Mapping[str, Any],
    instance: Mapping[str, Any],
    adapter: Mapping[str, Any],
    *,
    task: str,
    stats: Mapping[str, float] | None,
    spot: Spot,
    wanted: Wanted,
) -> Record:
    result = as_object(row.get("result"))
    request = as_object(row.get("request"))
    asked = as_object(instance.get("input"))
    sent = sent_of(asked.get("messages")) or sent_of(asked.get("text"))
    mapping = row.get("output_mapping")
    query = sent.query if sent else None
    if query is not None and isinstance(mapping, Mapping) and mapping:
        query = "\n".join([query, *(f"{letter}) {text}" for letter, text in mapping.items())])
    right = [
        text_of(reference.get("output"))
        for reference in instance.get("references") or ()
        if isinstance(reference, Mapping) and "correct" in (reference.get("tags") or ())
    ]
    letters = [letter for letter, text in mapping.items() if text in right] if isinstance(mapping, Mapping) else []
    record = Record(
        spot=spot,
        model=wanted.model or as_text(adapter.get("model") or request.get("model")),
        task=task,
        query=query,
        messages=sent.messages if sent else (),
        query_id=as_text(instance.get("id")),  # numbers of another run's instances begin anew: the text decides, too
        sample=int(row.get("train_trial_index") or 0),
        gold=as_text(letters[0] if letters else right[0] if right else None),
        latency_s=None if result.get("cached") else number(result.get("request_time")),
        at=number(result.get("request_datetime")),
        raw=row,
    )
    if not result.get("success", False):
        record.failure = str(result.get("error") or "no result")
        return record
    completions = result.get("completions") or [{}]
    record.response = text_of(completions[0].get("text"))
    if isinstance(mapping, Mapping) and record.response is not None and record.response.strip() in mapping:
        record.answer = record.response.strip()
    if stats:
        scores = {name: value for name, value in stats.items() if name in _HELM_METRICS or name == wanted.reward}
        name = chosen(scores, wanted, spot, preferred=_HELM_METRICS)
        record.reward = None if name is None else number(scores[name])
        record.prompt_tokens = stats.get("num_prompt_tokens")
        record.completion_tokens = stats.get("num_output_tokens") or stats.get("num_completion_tokens")
    return record


def _helm_stats(folder: Path, tally: ReadTally) -> dict[tuple[str, int], dict[str, float]]:
    """Read the scores of each instance and trial, without those of perturbed ones."""
    file = next((folder / name for name in (HELM_FILES[1], f"{HELM_FILES[1]}.gz") if (folder / name).exists()), None)
    if file is None:
        tally.note(f"run without {HELM_FILES[1]}: its answers are unscored")
        return {}
    found: dict[tuple[str, int], dict[str, float]] = {}
    for _, row in rows_of(file):
        if not row.get("perturbation"):
            key = str(row.get("instance_id")), int(row.get("train_trial_index") or 0)
            for stat in row.get("stats") or ():
                name, mean = stat.get("name") or {}, number(stat.get("mean"))
                if mean is None and stat.get("count"):
                    mean = (number(stat.get("sum")) or 0.0) / stat["count"]
                if mean is not None and not name.get("perturbation"):
                    found.setdefault(key, {})[str(name.get("name"))] = mean
    return found


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else str(index)
