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

from langchain_rlfocal.chat_models.consensus import Verdict
from langchain_rlfocal.chat_models.equivalence import Hearing
from langchain_rlfocal.chat_models.history import KEY
from langchain_rlfocal.chat_models.turns import RESTING, Turn
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.execution import UnusableAnswerError, Usage, ending_of, usage_of
from langchain_rlfocal.records import Candidate, Failure, Selection
from langchain_rlfocal.redaction import printable

_WIDTH = 110
_MAX_ANSWER_CHARS = 36

_FATES = {
    "cancelled": "was cancelled",
    "refusal": "refused",
    "truncated": "was cut off",
    "filtered": "was filtered",
}


def tokens_of(result: Candidate | Failure) -> UsageMetadata | None:
    """Return the tokens that one call took, also where its answer could not be used; None where unknown."""
    if isinstance(result, Candidate):
        return usage_of(result.message)
    message = _message_of(result)
    return usage_of(message) if message is not None else None


def _message_of(failure: Failure) -> AIMessage | None:
    """Return what a member responded that could not be used; None where it did not respond."""
    return failure.error.message if isinstance(failure.error, UnusableAnswerError) else None


def total_usage(results: Sequence[Candidate | Failure]) -> UsageMetadata | None:
    """Sum the tokens of all calls; None if none of them reports any."""
    total: UsageMetadata | None = None
    for result in results:
        if (usage := tokens_of(result)) is not None:
            total = add_usage(total, usage)
    return total


def describe(turn: Turn, verdict: Verdict, synthesis: Candidate | Failure | None) -> dict[str, Any]:
    """Say in JSON values how an answer came about.

    Args:
        turn: The turn, whose candidates have canonical answers.
        verdict: What they together do.
        synthesis: What came of asking the synthesizer, None if it was not asked.
    """
    results: list[Candidate | Failure] = [*turn.candidates, *turn.failures]
    return {
        "policy": turn.policy.policy_id,
        "trained": turn.policy.trained,
        "cost_weight": _number(turn.knobs.cost_weight),
        "target_calls": _number(turn.knobs.target_calls),
        "excluded": dict(turn.eligible.excluded),
        "repairs": turn.repairs,
        "rounds": [describe_selection(selection) for selection in turn.selections],
        "candidates": [describe_result(candidate) for candidate in turn.candidates],
        "failures": [describe_result(failure) for failure in turn.failures],
        "open_text": turn.is_open_text,
        "fusion": describe_fusion(verdict, synthesis, notes=turn.notes),
        "equivalence": None if turn.hearing is None else _describe_hearing(turn.hearing, turn.judged_same),
        "synthesizer": None
        if synthesis is None
        else {
            "latency_s": _number(synthesis.latency_s),
            "usage": _plain(tokens_of(synthesis)),
            "failure": _describe_failure(synthesis) if isinstance(synthesis, Failure) else None,
        },
        "usage": {result.member: _plain(tokens_of(result)) for result in results},
        "resting": list(turn.resting),
        "spent": _describe_cost(turn.limits.ledger.spent),
    }


def _describe_hearing(hearing: Hearing, same: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Say in JSON values what the equivalence judge was asked, and what that took."""
    return {
        "judge": hearing.judge.member.name,
        "pairs": hearing.num_pairs,
        "recalled": hearing.num_recalled,
        "same": [list(members) for members in same],
        "calls": [
            {
                "round": result.round,
                "latency_s": _number(result.latency_s),
                "usage": _plain(tokens_of(result)),
                "cost_usd": _number(result.cost_usd) if isinstance(result, Candidate) else None,
                "failure": _describe_failure(result) if isinstance(result, Failure) else None,
                **_describe_retries(result),
            }
            for result in hearing.results
        ],
    }


def _describe_cost(cost: Usage) -> dict[str, Any]:
    return {"calls": cost.calls, "tokens": cost.tokens, "usd": _number(cost.usd)}


def describe_selection(selection: Selection) -> dict[str, Any]:
    """Say in JSON values whom the Decider chose in one round."""
    return {
        "round": selection.round,
        "asked": list(selection.members),
        "probabilities": {name: _number(p) for name, p in selection.probabilities.items()},
    }


def describe_result(result: Candidate | Failure) -> dict[str, Any]:
    """Say in JSON values what came of asking one member.

    Only a failure has a `kind`, only an answer that is not whole a `flaw`, and an `ending` where the provider says of one.
    """
    if isinstance(result, Failure):
        return {
            "member": result.member,
            "round": result.round,
            **_describe_failure(result),
            **_describe_ending(result),
            **_describe_retries(result),
        }
    return {
        "member": result.member,
        "round": result.round,
        "answer": result.answer,
        "answer_kind": result.answer_kind,
        "text": result.text,
        "latency_s": _number(result.latency_s),
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": result.completion_tokens,
        "cost_usd": _number(result.cost_usd),
        "logprob": _number(result.logprob),
        "option_probs": None if result.option_probs is None else dict(result.option_probs),
        **({} if result.flaw is None else {"flaw": result.flaw}),
        **_describe_ending(result),
        **_describe_retries(result),
    }


def _describe_ending(result: Candidate | Failure) -> dict[str, Any]:
    message = result.message if isinstance(result, Candidate) else _message_of(result)
    ending = {} if message is None else ending_of(message)
    return {"ending": ending} if ending else {}


def _describe_retries(result: Candidate | Failure) -> dict[str, Any]:
    return {"retries": [_describe_failure(failure) for failure in result.retries]}


def describe_fusion(
    verdict: Verdict, synthesis: Candidate | Failure | None, *, notes: Sequence[str] = ()
) -> dict[str, Any]:
    """Say in JSON values what the candidates together do, how sure Fusion is of it, and what could not be compared."""
    answer = verdict.answer
    return {
        "member": answer.member,
        "answer": answer.answer,
        "weights": {label: _number(weight) for label, weight in answer.weights.items()},
        "confidence": _number(answer.confidence),
        "synthesized": isinstance(synthesis, Candidate),
        "action": verdict.action,
        "agreement": _number(verdict.agreement),
        "fields": None if verdict.fields is None else {path: _number(share) for path, share in verdict.fields.items()},
        "merged": verdict.merged,
        "notes": list(notes),
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
        said = row["answer"] if not failed and row["answer"] is not None else row.get("text") or _fate(row)
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
    lines += _agreement(fusion)
    lines += _comparison(facts)
    for row in [*facts["candidates"], *facts["failures"]]:
        tried = "; ".join(f"{r['kind']}: {r['reason'].rstrip('.')}" for r in row.get("retries") or ())
        lines += [f"{row['member']} was asked {len(row['retries']) + 1} times: {tried}"] if tried else []
    lines += [f"{f['member']} {_fate(f)}: {f['reason']}" for f in facts["failures"]]
    lines += [f"{c['member']} {_FATES[c['flaw']]}, and nobody did better" for c in facts["candidates"] if c.get("flaw")]
    lines += [f"{name} was left out: {RESTING}" for name in facts.get("resting") or ()]
    lines += [f"{name} was left out: it {reason}" for name, reason in (facts.get("excluded") or {}).items()]
    lines += [f"of the conversation: {repair}" for repair in facts.get("repairs") or ()]
    if (facts.get("synthesizer") or {}).get("failure"):
        failure = facts["synthesizer"]["failure"]
        lines.append(f"the synthesizer failed: {failure['kind']}: {failure['reason']}")
    return "\n".join(printable(line) for line in lines)


def _fate(row: Mapping[str, Any]) -> str:
    """Say in words why a member has no answer; one that was not needed, or would not, has not failed."""
    kind = row.get("kind") or row.get("flaw") or "empty"
    return _FATES.get(kind, f"failed: {kind}")


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


def _agreement(fusion: Mapping[str, Any]) -> list[str]:
    """Say how far members agree on calls or on an object; nothing of plain texts, whose weights the table shows."""
    if fusion.get("action") == "tool_calls":
        return [f"agreement on these tool calls {_decimal(fusion['agreement'], 2)}"]
    if fusion.get("action") != "object":
        return []
    fields = ", ".join(f"{path or 'the value'} {_decimal(share, 2)}" for path, share in fusion["fields"].items())
    return [f"agreement by field: {fields}", *(["put together from several members"] if fusion["merged"] else [])]


def _comparison(facts: Mapping[str, Any]) -> list[str]:
    """Say what could not be compared, what a judge found to be the same, and why nobody more was asked."""
    unread = [row["member"] for row in facts["candidates"] if row["answer"] is None and row.get("flaw") != "refusal"]
    lines = [f"nothing comparable could be read in the answer of {', '.join(unread)}"] if unread else []
    heard = facts.get("equivalence") or {}
    lines += [f"{a} and {b} say the same, by the equivalence judge" for a, b in heard.get("same") or ()]
    lines += facts["fusion"].get("notes") or ()
    if facts.get("open_text"):
        lines.append(
            "nobody more was asked: open text cannot agree; `equivalence` or `synthesizer` would use more answers"
        )
    return lines


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
