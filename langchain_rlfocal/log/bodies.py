"""Records as JSON, and back: strictly, so that what breaks a rule is named."""

import json
import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

import numpy as np
import orjson
from pydantic import ConfigDict, TypeAdapter, ValidationError

from langchain_rlfocal.errors import OutcomeLogError
from langchain_rlfocal.log.records import Feedback, ServedAnswer
from langchain_rlfocal.records import Candidate, Failure
from langchain_rlfocal.redaction import as_utf8

Record = TypeVar("Record")


def facts_of(served: ServedAnswer) -> dict[str, Any]:
    """Lay out a served answer as JSON values; what has its default, or is unknown, is left out."""
    query, answer = served.query, served.answer
    facts: dict[str, Any] = {
        "id": served.id,
        "query": {"text": query.text} if query.task is None else {"text": query.text, "task": query.task},
        "available": served.available,
        "policy_id": served.policy_id,
        "cost_weight": served.cost_weight,
        "max_team": served.max_team,
        "max_rounds": served.max_rounds,
        "candidates": [*map(_candidate_facts, served.candidates)],
        "failures": [*map(_failure_facts, served.failures)],
        "answer": {
            "member": answer.member,
            "answer": answer.answer,
            "weights": _as_dict(answer.weights),
            "supporters": _as_dict(answer.supporters),
        },
        "propensity": _as_dict(served.propensity),
    }
    if served.explore:
        facts |= {"explore": served.explore, "explored": served.explored}
    if served.pinned:
        facts["pinned"] = True
    if served.price_factors:
        facts["price_factors"] = _as_dict(served.price_factors)
    return facts


def _as_dict(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return mapping if type(mapping) is dict else {**mapping}


def _candidate_facts(candidate: Candidate) -> dict[str, Any]:
    one, logprob = candidate, candidate.logprob
    facts: dict[str, Any] = {
        "member": one.member,
        "round": one.round,
        "text": one.text,
        "answer": one.answer,
        "latency_s": one.latency_s,
    }
    if one.prompt_tokens is not None:
        facts["prompt_tokens"] = one.prompt_tokens
    if one.completion_tokens is not None:
        facts["completion_tokens"] = one.completion_tokens
    if one.cost_usd is not None:
        facts["cost_usd"] = one.cost_usd
    if logprob is not None and math.isfinite(logprob):
        facts["logprob"] = logprob
    if one.option_probs is not None:
        facts["option_probs"] = one.option_probs
    if one.flaw is not None:
        facts["flaw"] = one.flaw
    if one.answer_kind is not None:
        facts["answer_kind"] = one.answer_kind
    if one.retries:
        facts["retries"] = [_failure_facts(failure) for failure in one.retries]
    return facts


def _failure_facts(failure: Failure) -> dict[str, Any]:
    facts = {
        "member": failure.member,
        "round": failure.round,
        "kind": failure.kind,
        "reason": failure.reason,
        "latency_s": failure.latency_s,
        "is_retryable": failure.is_retryable,
    }
    if failure.retries:
        facts["retries"] = [_failure_facts(one) for one in failure.retries]
    return facts


def _plain(value: Any) -> Any:
    """Make a Python number of NumPy's, which a user's policy may return."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no form in JSON")


_encode: Callable[[Any], str] = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_plain).encode


def dumps(facts: Mapping[str, Any]) -> str:
    """Write JSON.

    Raises:
        TypeError, ValueError: A value has no form in JSON.
    """
    try:
        data = orjson.dumps(facts, default=_plain)  # takes a fifth of the time
    except TypeError:  # half a surrogate pair, a large integer, or what has no form at all
        data = None
    if data is None or b"null" in data:  # so it writes NaN
        return as_utf8(_encode(facts))
    return data.decode()


def as_text(text: str | None) -> str | None:
    """Make a text that each database can hold: PostgreSQL has no form for U+0000."""
    return None if text is None else as_utf8(text).replace("\0", "\ufffd")


def as_required(text: str) -> str:
    """Make a text that each database can hold; see `as_text`."""
    return as_utf8(text).replace("\0", "\ufffd")


def details_of(**facts: Any) -> str | None:
    """Write what is seldom there as JSON; None where nothing is there. Dates and the like become texts."""
    there = {name: value for name, value in facts.items() if value}
    if not there:
        return None
    try:
        return as_utf8(_encode_any(there))
    except ValueError:  # NaN, say, in a column of the user's
        from langchain_rlfocal.outcomes.files import without_nan  # noqa: PLC0415  # it loads pyarrow, and this is rare

        return as_utf8(_encode_any(without_nan(there)))


def _as_json(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


_encode_any: Callable[[Any], str] = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_as_json).encode


@cache
def _answers() -> TypeAdapter[tuple[ServedAnswer]]:
    """Read served answers strictly; made at first use, as it takes milliseconds."""
    return TypeAdapter(tuple[ServedAnswer], config=_STRICT)


@cache
def mappings() -> TypeAdapter[dict[str, Any]]:
    """Read JSON objects."""
    return TypeAdapter(dict[str, Any], config=_STRICT)


_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True, extra="forbid", allow_inf_nan=False)


def read(adapter: TypeAdapter[Record], text: str, name: str, log: str) -> Record:
    """Read JSON by an adapter.

    Raises:
        OutcomeLogError: It breaks a rule.
    """
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise damaged(f"{where}: {first['msg']}" if where else first["msg"], name, log) from None


def damaged(rule: str, name: str, log: str) -> OutcomeLogError:
    """Say that a row breaks a rule."""
    return OutcomeLogError(
        f"The outcome log {log} breaks a rule in {name}: {rule}. Correct or delete that row, or name another file."
    )


def served_of(text: str, name: str, log: str) -> ServedAnswer:
    """Read a served answer.

    Raises:
        OutcomeLogError: It breaks a rule.
    """
    return read(_answers(), f"[{text}]", name, log)[0]


def feedback_of(answer_id: str, text: str, name: str, log: str) -> Feedback:
    """Read feedback.

    Raises:
        OutcomeLogError: It breaks a rule.
    """
    facts = read(mappings(), text, name, log)
    try:
        return Feedback(answer_id=answer_id, **facts)
    except (TypeError, ValueError) as error:
        raise damaged(str(error), name, log) from None
