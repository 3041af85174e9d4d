"""Functions and evaluators of the user's as scorers: `package.module:attribute`.

Recognised are a `Scorer`, an evaluator of LangSmith or openevals, and a function that names what it wants to know. What they
return is checked: what is no score in [0, 1] makes the reply unscored, with the reason.
"""

import asyncio
import inspect
import json
import math
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.outcomes import Question
from langchain_rlfocal.scoring.base import Reply, Score, Scorer, unscored

_KNOWN: dict[str, Callable[[Question, Reply], Any]] = {
    "reply": lambda question, reply: reply.text or "",  # noqa: ARG005
    "reference": lambda question, reply: question.gold,  # noqa: ARG005
    "question": lambda question, reply: question,  # noqa: ARG005
    "tool_calls": lambda question, reply: list(reply.tool_calls),  # noqa: ARG005
}
"""What a function may ask for, by the name of its parameter."""

_EVALUATED: dict[str, Callable[[Question, Reply], Any]] = {
    "inputs": lambda question, reply: question.query,  # noqa: ARG005
    "outputs": lambda question, reply: _structured(reply.text or "", question.gold),
    "reference_outputs": lambda question, reply: _structured(question.gold, question.gold),  # noqa: ARG005
}
"""The same of evaluators, by LangSmith's and openevals' names."""


def open_function(spec: str) -> Scorer:
    """Return what `package.module:attribute` leads to, as a scorer.

    Raises:
        InputError: It cannot be imported, or is nothing that scores.
    """
    try:
        found: Any = pkgutil.resolve_name(spec)
    except Exception as error:  # a module of the user's may raise anything
        raise InputError(
            f"The scorer {spec!r} must be package.module:function that can be imported: {error}."
        ) from error
    if isinstance(found, type):
        raise InputError(
            f"The scorer {spec!r} must be a function or an object, got a class. Make one: `scorer = {found.__name__}()`."
        )
    if isinstance(found, Scorer) and inspect.iscoroutinefunction(found.score):
        return found
    if hasattr(found, "evaluate_run") and hasattr(found, "aevaluate_run"):
        return _RunEvaluatorScorer(spec, found)
    if not callable(found):
        raise InputError(
            f"The scorer {spec!r} must be a function, an evaluator or a Scorer, got {type(found).__name__}."
        )
    return _FunctionScorer(spec, found, _arguments(spec, found))


def _arguments(spec: str, function: Callable[..., Any]) -> dict[str, Callable[[Question, Reply], Any]]:
    """Say what to pass to a function, by the names of its parameters."""
    parameters = inspect.signature(function).parameters.values()
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    known = _EVALUATED if "outputs" in named or (takes_any and not named.keys() & _KNOWN.keys()) else _KNOWN
    if {"run", "example"} <= named.keys():
        return {"run": lambda q, r: _run_and_example(q, r)[0], "example": lambda q, r: _run_and_example(q, r)[1]}
    missing = [name for name, parameter in named.items() if name not in known and parameter.default is parameter.empty]
    positional = any(parameter.kind is parameter.POSITIONAL_ONLY for parameter in parameters)
    if missing or positional or not (named or takes_any):
        raise InputError(
            f"The scorer {spec!r} must be a function with parameters among {', '.join(_KNOWN)}, or an evaluator with "
            f"{', '.join(_EVALUATED)}, got ({', '.join(named)}). Rename them, or give the others defaults."
        )
    return {name: read for name, read in known.items() if name in named or not named}


@dataclass(slots=True)
class _FunctionScorer:
    name: str
    function: Callable[..., Any]
    arguments: dict[str, Callable[[Question, Reply], Any]]

    async def score(self, question: Question, reply: Reply) -> Score:
        """Score one reply to a question."""
        given = {name: read(question, reply) for name, read in self.arguments.items()}
        # A function of the user's says what it took in a `Score`; what an evaluator took, nobody says.
        cost_usd = 0.0 if self.arguments.keys() <= _KNOWN.keys() else None
        call = getattr(self.function, "__call__", self.function)  # noqa: B004  # an object may be called asynchronously
        if inspect.iscoroutinefunction(self.function) or inspect.iscoroutinefunction(call):
            return score_of(await self.function(**given), cost_usd=cost_usd)
        said = await asyncio.to_thread(self.function, **given)
        return score_of(await said if inspect.isawaitable(said) else said, cost_usd=cost_usd)


@dataclass(slots=True)
class _RunEvaluatorScorer:
    name: str
    evaluator: Any

    async def score(self, question: Question, reply: Reply) -> Score:
        """Score one reply to a question."""
        return score_of(await self.evaluator.aevaluate_run(*_run_and_example(question, reply)))


def score_of(said: Any, *, cost_usd: float | None = None) -> Score:
    """Read what a function or an evaluator returned: a number, a truth value, None, a `Score`, or a result with a score.

    Args:
        said: What it returned.
        cost_usd: Dollars that it took, unless it says so itself; None where that is unknown.
    """
    if isinstance(said, Score):
        return said
    if hasattr(said, "model_dump"):  # LangSmith's EvaluationResult
        said = said.model_dump()
    if isinstance(said, Mapping) and isinstance(said.get("results"), list):
        said = said["results"]
    if isinstance(said, list | tuple):
        if len(said) != 1:
            return unscored(f"an evaluator must return one result, got {len(said)}", cost_usd=cost_usd)
        return score_of(said[0], cost_usd=cost_usd)
    reason = None
    if isinstance(said, Mapping):
        if "score" not in said:
            return unscored(f"a result must have a `score`, got {', '.join(map(str, said))}", cost_usd=cost_usd)
        reason = said.get("comment") or said.get("reason")
        said = said["score"]
    if said is None:
        return unscored(str(reason or "it was left open"), cost_usd=cost_usd)
    if not isinstance(said, int | float):
        with_item = getattr(said, "item", None)  # a number of NumPy's
        said = with_item() if callable(with_item) else said
    if not isinstance(said, int | float) or not math.isfinite(said) or not 0 <= said <= 1:
        return unscored(
            f"a score must be a number in [0, 1], true or false, or None, got {said!r:.60}", cost_usd=cost_usd
        )
    return Score(value=float(said), reason=str(reason)[:200] if reason else None, cost_usd=cost_usd)


def _structured(text: str | None, gold: str | None) -> Any:
    """Return a text as the JSON that it is, where the reference is an object or a list: evaluators compare those as such."""
    parsed = []
    for one in (gold, text):
        try:
            parsed.append(json.loads(one or ""))
        except (ValueError, RecursionError):
            return text
    return parsed[1] if isinstance(parsed[0], dict | list) and isinstance(parsed[1], dict | list) else text


def _run_and_example(question: Question, reply: Reply) -> tuple[Any, Any]:
    """Write a question and a reply as LangSmith's evaluators are given them."""
    from langsmith.schemas import Example, Run  # noqa: PLC0415  # only its evaluators need it

    now, run_id, inputs = datetime.now(UTC), uuid4(), {"input": question.query}
    run = Run(
        id=run_id,
        name="reply",
        run_type="llm",
        start_time=now,
        trace_id=run_id,
        inputs=inputs,
        outputs={"output": _structured(reply.text or "", question.gold)},
    )
    gold = None if question.gold is None else {"output": _structured(question.gold, question.gold)}
    return run, Example(id=uuid4(), dataset_id=uuid4(), created_at=now, inputs=inputs, outputs=gold)
