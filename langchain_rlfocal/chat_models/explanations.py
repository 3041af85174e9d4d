"""Explanations: what an answer says of how it came about, and that as a table for people.

`describe` writes `response_metadata["rlfocal"]`, JSON values only; `explain` reads it. The two belong together, and
nothing else knows its layout. An explanation reports what happened; it does not justify it.
"""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, UsageMetadata
from langchain_core.messages.ai import add_usage

from langchain_rlfocal.chat_models.turns import Knobs
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.execution import UnusableAnswerError
from langchain_rlfocal.foreign_text import printable
from langchain_rlfocal.policies import Policy
from langchain_rlfocal.records import Answer, Candidate, Failure, Selection

KEY = "rlfocal"
"""Where the explanation stands in a message's `response_metadata`."""

_WIDTH = 110
_MAX_ANSWER_CHARS = 36


def usage_of(result: Candidate | Failure) -> UsageMetadata | None:
    """Return the tokens that one call took, also where its answer could not be used; None where unknown."""
    if isinstance(result, Candidate):
        message = result.message
    else:
        message = result.error.message if isinstance(result.error, UnusableAnswerError) else None
    return message.usage_metadata if message is not None else None


def total_usage(results: Sequence[Candidate | Failure]) -> UsageMetadata | None:
    """Sum the tokens of all calls; None if none of them reports any."""
    total: UsageMetadata | None = None
    for result in results:
        if (usage := usage_of(result)) is not None:
            total = add_usage(total, usage)
    return total


def describe(
    *,
    policy: Policy,
    knobs: Knobs,
    selections: Sequence[Selection],
    candidates: Sequence[Candidate],
    failures: Sequence[Failure],
    answer: Answer,
    synthesis: Candidate | Failure | None,
) -> dict[str, Any]:
    """Say in JSON values how an answer came about.

    Args:
        policy: The policy that decided.
        knobs: What the caller set for it.
        selections: Its choices, round by round.
        candidates: All candidates, with canonical answers.
        failures: All non-answers.
        answer: What Fusion decided.
        synthesis: What came of asking the synthesizer, None if it was not asked.
    """
    results: list[Candidate | Failure] = [*candidates, *failures]
    return {
        "policy": policy.policy_id,
        "trained": policy.trained,
        "cost_weight": _number(knobs.cost_weight),
        "target_calls": _number(knobs.target_calls),
        "rounds": [
            {
                "round": selection.round,
                "asked": list(selection.members),
                "probabilities": {name: _number(p) for name, p in selection.probabilities.items()},
            }
            for selection in selections
        ],
        "candidates": [
            {
                "member": c.member,
                "round": c.round,
                "answer": c.answer,
                "text": c.text,
                "latency_s": _number(c.latency_s),
                "prompt_tokens": c.prompt_tokens,
                "completion_tokens": c.completion_tokens,
                "cost_usd": _number(c.cost_usd),
                "logprob": _number(c.logprob),
                "option_probs": None if c.option_probs is None else dict(c.option_probs),
            }
            for c in candidates
        ],
        "failures": [{"member": f.member, "round": f.round, **_describe_failure(f)} for f in failures],
        "fusion": {
            "member": answer.member,
            "answer": answer.answer,
            "weights": {label: _number(weight) for label, weight in answer.weights.items()},
            "confidence": _number(answer.confidence),
            "synthesized": isinstance(synthesis, Candidate),
        },
        "synthesizer": None
        if synthesis is None
        else {
            "latency_s": _number(synthesis.latency_s),
            "usage": _plain(usage_of(synthesis)),
            "failure": _describe_failure(synthesis) if isinstance(synthesis, Failure) else None,
        },
        "usage": {result.member: _plain(usage_of(result)) for result in results},
    }


def explain(message: AIMessage | Mapping[str, Any]) -> str:
    """Render how an answer came about as a small table of plain text; see `RLFocalChatModel.explain`."""
    metadata = message.response_metadata if isinstance(message, AIMessage) else message
    facts = metadata.get(KEY) if isinstance(metadata, Mapping) else None
    if not isinstance(facts, Mapping) or not {"rounds", "candidates", "failures", "fusion"} <= set(facts):
        raise InputError(
            f'`message` must be an answer of RLFocalChatModel, or its `response_metadata`, with the key "{KEY}"; got '
            f"{type(message).__name__} without. Pass what `model.invoke` returned."
        )
    from rich import box  # noqa: PLC0415  # only people who ask for the table wait for rich
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    fusion = facts["fusion"]
    table = Table(box=box.ASCII2)
    for heading, justify in (
        ("round", "right"),
        ("member", "left"),
        ("chance", "right"),
        ("answer", "left"),
        ("weight", "right"),
        ("tokens", "right"),
        ("seconds", "right"),
    ):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]  # both are rich's literals
    probabilities = {row["round"]: row["probabilities"] for row in facts["rounds"]}
    for row in sorted([*facts["candidates"], *facts["failures"]], key=lambda row: row["round"]):
        failed = "kind" in row
        said = f"failed: {row['kind']}" if failed else row["answer"] if row["answer"] is not None else row["text"]
        cells = [
            str(row["round"]),
            ("* " if row["member"] == fusion["member"] else "") + row["member"],
            _decimal(probabilities.get(row["round"], {}).get(row["member"]), 2),
            _shorten(said),
            "" if failed else _decimal(fusion["weights"].get(row["answer"] or ""), 2),
            "" if failed else _tokens(row),
            _decimal(row["latency_s"], 2),
        ]
        table.add_row(*(Text(printable(cell)) for cell in cells))  # Text: a member's "[red]" is no markup
    console = Console(file=io.StringIO(), width=_WIDTH, color_system=None, force_terminal=False, legacy_windows=False)
    console.print(table)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]  # the StringIO above
    lines = [
        f"policy {facts['policy']} ({_terms(facts)})",
        *(line.rstrip() for line in text.splitlines()),
        f"answered by {_author(fusion)}, confidence {_decimal(fusion['confidence'], 2)}",
    ]
    lines += [f"{f['member']} failed: {f['kind']}: {f['reason']}" for f in facts["failures"]]
    if (facts.get("synthesizer") or {}).get("failure"):
        failure = facts["synthesizer"]["failure"]
        lines.append(f"the synthesizer failed: {failure['kind']}: {failure['reason']}")
    return "\n".join(printable(line) for line in lines)


def _terms(facts: Mapping[str, Any]) -> str:
    if not facts["trained"]:
        return "untrained: a vote, not learned"
    weight, target = facts.get("cost_weight"), facts.get("target_calls")
    terms = "trained" if weight is None else f"trained; cost weight {weight:.3g}"
    return terms if target is None else f"{terms}, for {target:g} calls a query on average"


def _author(fusion: Mapping[str, Any]) -> str:
    if fusion["synthesized"]:
        return "the synthesizer, from these candidates"
    if fusion["member"] is None:
        return f"the scores of the options: {_shorten(fusion['answer'] or '')}, which no member ranked first"
    return f"{fusion['member']} (*)"


def _describe_failure(failure: Failure) -> dict[str, Any]:
    return {"kind": failure.kind, "reason": failure.reason, "latency_s": _number(failure.latency_s)}


def _number(value: float | None) -> float | None:
    """Make a number that JSON can hold: of Python's own type, None where it is not finite."""
    return float(value) if value is not None and math.isfinite(value) else None


def _plain(usage: UsageMetadata | None) -> dict[str, Any] | None:
    return None if usage is None else dict(usage)


def _decimal(value: float | None, places: int) -> str:
    return "?" if value is None else f"{value:.{places}f}"


def _tokens(row: Mapping[str, Any]) -> str:
    counts = (row["prompt_tokens"], row["completion_tokens"])
    return "+".join("?" if count is None else str(count) for count in counts)


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_ANSWER_CHARS else f"{line[: _MAX_ANSWER_CHARS - 3]}..."
