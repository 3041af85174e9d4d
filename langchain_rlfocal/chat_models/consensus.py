"""Consensus: what the candidates together do: call tools, say a text, or return an object.

Fusion weighs labels; a label stands for a whole multiset of tool calls, for a text, or for an object. Members vote for
their calls as a whole or for answering in text: one member's calls win, and calls are never mixed. Objects of structured
output without a majority are agreed on field by field.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from langchain_core.messages import ToolCall

from langchain_rlfocal._langchain import EnsembleDisagreementError
from langchain_rlfocal.answers.schemas import merge
from langchain_rlfocal.chat_models.requests import Request
from langchain_rlfocal.records import Answer, Candidate
from langchain_rlfocal.redaction import printable

OnDisagreement = Literal["leader", "text", "raise"]
"""What to do where no action has more than half of Fusion's weight: the most trusted member's calls, text, or an error."""

MAJORITY = 0.5 + 1e-9
"""Share of Fusion's weight that all others together cannot reach."""

_MAX_SHOWN_CHARS = 300


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the candidates together do.

    Attributes:
        answer: What Fusion decided, with the label and the member that this verdict follows.
        text: The text to answer with.
        calls: The tool calls to answer with, as one member made them.
        action: `"text"`, `"tool_calls"` or `"object"`.
        agreement: Share of Fusion's weight behind the action, in [0, 1]: behind these calls, this whole object, this text; or,
            where others would have called tools, behind answering in text at all.
        fields: For an object, the share of Fusion's weight behind each field's most supported value; None else.
        merged: True if the object's fields come from several members.
    """

    answer: Answer
    text: str
    calls: Sequence[ToolCall]
    action: Literal["text", "tool_calls", "object"]
    agreement: float
    fields: Mapping[str, float] | None = None
    merged: bool = False


def agree(
    candidates: Sequence[Candidate],
    answer: Answer,
    request: Request,
    *,
    on_disagreement: OnDisagreement,
    is_relayed: bool = False,
) -> Verdict:
    """Decide what the candidates together do; a text that has been passed on already stays as it is.

    Raises:
        DisagreementError: There is no majority, and the caller wants none else or text is no way out.
    """
    acting = {candidate.answer or "" for candidate in candidates if request.acts(candidate.message)}
    if request.wants_object and (not acting or request.response_format is None):
        return _agree_on_object(candidates, answer, request, is_relayed=is_relayed)
    shares = {label: answer.weights.get(label, 0.0) for label in sorted(acting)}
    texts = {label: weight for label, weight in answer.weights.items() if label not in acting}
    text_share = sum(texts.values())
    own = answer.answer or ""
    # On a tie Fusion's own winner stays, and among texts in any case: one that nobody can read has no weight.
    best_calls = max(shares, key=lambda label: (shares[label], label == own), default=None)
    heaviest_text = own if own in texts else max(texts, key=texts.__getitem__, default=None)
    calls_share = shares[best_calls] if best_calls is not None else 0.0
    is_text = best_calls is None or (text_share, own in texts) > (calls_share, own == best_calls)
    if acting and max(text_share, calls_share) <= MAJORITY and on_disagreement != "leader":
        if on_disagreement == "raise" or request.is_forced:
            raise _disagreement(candidates, answer)
        if not texts:
            return Verdict(answer, _in_words(candidates, answer), (), "text", 0.0)
        is_text = True
    label = heaviest_text if is_text else best_calls
    assert label is not None, "what wins is there"
    if label != own:
        answer = replace(answer, answer=label or None, member=answer.supporters[label][0])
    if is_text and request.response_format is not None:
        objects = [candidate for candidate in candidates if not request.acts(candidate.message)]
        return _agree_on_object(objects, answer, request, is_relayed=is_relayed)
    if answer.member is None:  # an option that no member ranked first: nobody has written it
        return Verdict(answer, answer.answer or "", (), "text", answer.weights.get(label, 0.0))
    winner = next(candidate for candidate in candidates if candidate.member == answer.member)
    if not is_text:
        return Verdict(answer, winner.text, winner.message.tool_calls, "tool_calls", calls_share)
    return Verdict(answer, winner.text, (), "text", text_share if acting else answer.weights.get(label, 0.0))


def _agree_on_object(candidates: Sequence[Candidate], answer: Answer, request: Request, *, is_relayed: bool) -> Verdict:
    """Take the object of a majority, else agree field by field, else take Fusion's winner."""
    leader = next((index for index, candidate in enumerate(candidates) if candidate.member == answer.member), 0)
    winner, merged = candidates[leader], False
    values = [request.value_of(candidate.message) for candidate in candidates]
    labels = [candidate.answer or "" for candidate in candidates]
    weights = [answer.weights.get(label, 0.0) / labels.count(label) for label in labels]
    schema = request.object_schema
    if not sum(weights) > 0:
        weights = [1.0] * len(weights)
    found = merge(values, weights, leader=leader, schema=schema)
    value = None
    if answer.confidence <= MAJORITY:
        whole = next((at for at, one in enumerate(values) if one is found.value), None)
        if whole is not None:
            winner = candidates[whole]
            answer = replace(answer, answer=labels[whole] or None, member=winner.member)
        elif (value := schema.write(found.value)) is not None:
            label = schema.label(found.value)
            merged = label not in labels
            answer = replace(answer, answer=label, member=answer.member if merged else answer.supporters[label][0])
    if value is None:
        value = request.written_of(winner.message)
    text, calls = json.dumps(value, ensure_ascii=False), []
    if is_relayed:
        text = winner.text
    elif request.response_format is None:
        text, calls = "", [ToolCall(name=winner.message.tool_calls[0]["name"], args=value, id=None)]
    agreement = answer.weights.get(answer.answer or "", 0.0)
    return Verdict(answer, text, calls, "object", agreement, dict(found.agreement), merged)


def _proposals(candidates: Sequence[Candidate]) -> dict[str, str]:
    """Say in words what each member would have done."""
    proposals = {}
    for candidate in candidates:
        made = [f"{c['name']}({json.dumps(c['args'], ensure_ascii=False)})" for c in candidate.message.tool_calls]
        line = printable(" ".join(("; ".join(made) or f"text: {candidate.text}").split()))
        proposals[candidate.member] = line if len(line) <= _MAX_SHOWN_CHARS else f"{line[: _MAX_SHOWN_CHARS - 3]}..."
    return proposals


def _in_words(candidates: Sequence[Candidate], answer: Answer) -> str:
    """Answer in text where nobody did."""
    proposals = _proposals(candidates)
    shown = [f"- {c.member} ({answer.weights.get(c.answer or '', 0.0):.0%}): {proposals[c.member]}" for c in candidates]
    return "\n".join(["The models disagree on what to do, so no tool was called. They proposed:", *shown])


def _disagreement(candidates: Sequence[Candidate], answer: Answer) -> EnsembleDisagreementError:
    proposals = _proposals(candidates)
    heaviest = max(answer.weights.values(), default=0.0)
    listed = "; ".join(f"{member}: {proposal}" for member, proposal in proposals.items())
    return EnsembleDisagreementError(
        "More than half of Fusion's weight must be behind one action, and the heaviest has "
        f'{heaviest:.0%}. {listed}. Ask more members (`max_team`), or give on_disagreement="leader".',
        proposals=proposals,
    )
