"""The answering river: the way of one query from its messages to an answer, in order.

`answer` decides what happens next and waits for nothing: it yields steps and is sent what came of them. `run` and `arun`
take the steps, the one in threads, the other on an event loop; so both rivers are the same decisions. What comes out at
the end is the text, piece by piece as early as it is certain, and last, always, the message.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from langchain_rlfocal._langchain import EnsembleBudgetError, EnsembleDeadlineError, EnsembleModelError, Parent
from langchain_rlfocal.chat_models.consensus import OnDisagreement, Verdict, decide
from langchain_rlfocal.chat_models.equivalence import Hearing
from langchain_rlfocal.chat_models.explanations import describe_fusion, describe_result, describe_selection
from langchain_rlfocal.chat_models.replies import refused, reply_of, text_pieces
from langchain_rlfocal.chat_models.requests import Request
from langchain_rlfocal.chat_models.synthesis import synthesis_messages
from langchain_rlfocal.chat_models.turns import Turn
from langchain_rlfocal.execution import (
    AnswerLimits,
    IsDecided,
    Role,
    RoundRequest,
    astream_round,
    failure_of,
    stream_round,
)
from langchain_rlfocal.pool import PoolMember
from langchain_rlfocal.records import Candidate, Failure


@dataclass(slots=True)
class Ask:
    """A step: ask members and wait for all. It is sent what came of each.

    Attributes:
        members: Whom to ask.
        messages: What to ask.
        request: What else is asked of them.
        round_number: The round.
        role: What traces say that they are.
        relay: True to pass the text of the only one on while it comes.
        hedges: Whom to ask beside slow members.
        is_settled: Tells when the answer is certain; None to wait for all.
        said: Set while the step is taken: whether any text has been passed on.
    """

    members: Sequence[PoolMember]
    messages: Sequence[BaseMessage]
    request: Request
    round_number: int
    role: Role = "member"
    relay: bool = False
    hedges: Sequence[PoolMember] = ()
    is_settled: IsDecided | None = None
    said: bool = False

    @property
    def manner(self) -> dict[str, Any]:
        """How to ask, as `execution` takes it."""
        return {"relay": self.relay, "hedges": self.hedges, "is_decided": self.is_settled}


@dataclass(frozen=True, slots=True)
class Tell:
    """A step: tell the handlers of the ensemble's run what has happened."""

    name: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Compute:
    """A step: do work that would hold up an event loop; a loop has it done in a thread."""

    work: Callable[[], None]


Step = Ask | Tell | Compute | str | AIMessage
Results = Sequence[Candidate | Failure]


@dataclass(frozen=True, slots=True)
class Settings:
    """What holds for a whole answer, beside the knobs.

    Attributes:
        model_name: The ensemble's name, under which LangChain counts the tokens.
        synthesizer: Who writes the answer where Fusion is unsure; None for nobody.
        synthesize_below: Confidence of Fusion below which it does.
        on_disagreement: What to do where no action has a majority.
        relay: True to pass text on as early as it is certain, False to make one message.
    """

    model_name: str
    synthesizer: PoolMember | None
    synthesize_below: float
    on_disagreement: OnDisagreement
    relay: bool


def answer(messages: list[BaseMessage], turn: Turn, settings: Settings) -> Generator[Step, Results, None]:
    """Answer.

    Yields:
        Steps; after an `Ask` it is to be sent what came of it. The last is the message.

    Raises:
        EnsembleError: Nobody answered, or one whose text was already being passed on broke off.
        DisagreementError: There is no majority, and the caller wants none else.
    """
    said = False
    # An answer that the synthesizer would write over is not certain yet.
    at_least = 0.0 if settings.synthesizer is None else settings.synthesize_below
    is_settled = partial(turn.is_settled, at_least=at_least)
    while members := turn.next_members():
        yield Tell("rlfocal_selection", describe_selection(turn.selections[-1]))
        relay = settings.relay and turn.is_decided and turn.request.may_relay(members[0].model)
        step = Ask(members, messages, turn.request, turn.round_number, relay=relay)
        if not relay:
            step.hedges, step.is_settled = turn.hedges(), is_settled
        results = yield step
        said = step.said
        if turn.comparing_takes_long(results):
            yield Compute(partial(turn.compare, results))
        turn.record(results, is_final=said)
        if turn.hearing is not None:
            yield from _hear(turn, turn.hearing)
        for result in turn.results_of_round:
            yield Tell("rlfocal_candidate", describe_result(result))
            _check_whole(result, said=said)
    if turn.choosing_takes_long():
        yield Compute(turn.take_the_best)
    fused = turn.fuse()
    if turn.is_refused:
        verdict = refused(turn.candidates, fused)
    else:
        verdict = decide(turn.candidates, fused, turn.request, on_disagreement=settings.on_disagreement, is_said=said)
    synthesis = None
    if not turn.is_refused and settings.synthesizer is not None and _is_unsure(turn, verdict, settings):
        prompt = synthesis_messages(messages, turn.candidates, fused)
        step = Ask([settings.synthesizer], prompt, Request(), turn.round_number, "synthesizer", relay=settings.relay)
        [synthesis] = yield step
        said = step.said
        _check_whole(synthesis, said=said)
        if isinstance(synthesis, Candidate) and synthesis.flaw is not None and not said:
            synthesis = failure_of(synthesis)
    message = reply_of(turn, verdict, synthesis=synthesis, model_name=settings.model_name)
    yield Tell("rlfocal_fusion", describe_fusion(verdict, synthesis, notes=turn.notes))
    if settings.relay and not said:
        yield from text_pieces(str(message.text))
    yield message


def _hear(turn: Turn, hearing: Hearing) -> Generator[Step, Results, None]:
    """Ask the equivalence judge about what rules leave open, and of what it calls the same once more, in the other order."""
    pairs = hearing.to_ask(turn.open_pairs())
    orders = (False,) if hearing.judge.by_likeness else (False, True)
    for is_swapped in orders:
        if pairs:
            sheet = hearing.sheet(pairs, swapped=is_swapped)
            [said] = yield Ask([hearing.judge.member], sheet.messages, Request(), turn.round_number, "equivalence")
            pairs = hearing.take(sheet, said, is_last=is_swapped == orders[-1])
    turn.settle()


def _check_whole(result: Candidate | Failure, *, said: bool) -> None:
    """Check that what was passed on has come to its end.

    Raises:
        EnsembleError: It broke off after its first words, which nobody can take back: another member cannot stand in.
    """
    if said and isinstance(result, Failure):
        kinds = {"deadline": EnsembleDeadlineError, "budget": EnsembleBudgetError}
        kind = kinds.get(result.kind, EnsembleModelError)
        error = kind(
            f"`{result.member}` broke off while its text was being passed on: {result.kind}: {result.reason.rstrip('.')}. Ask "
            "again; `invoke`, or `streaming=False`, lets another member stand in.",
            failures={result.member: f"{result.kind}: {result.reason}"},
            is_retryable=result.is_retryable,
        )
        raise error from result.error


def _is_unsure(turn: Turn, verdict: Verdict, settings: Settings) -> bool:
    """Tell whether the synthesizer should write: unsure, between texts. Tool calls and objects are never mixed by it."""
    if verdict.answer.confidence >= settings.synthesize_below or len(turn.candidates) == 1:
        return False
    return verdict.action == "text" and not any(turn.request.acts(candidate.message) for candidate in turn.candidates)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where the steps are taken.

    Attributes:
        parent: The ensemble's run.
        limits: What the answer may take.
        stop: Stop sequences of the call.
        ensemble_id: Id of the ensemble; see `execution.enclosing_ensembles`.
    """

    parent: Parent
    limits: AnswerLimits
    stop: list[str] | None
    ensemble_id: int

    def round_request(self, step: Ask) -> RoundRequest:
        """Say what a step puts to every member."""
        return RoundRequest(
            messages=step.messages,
            round_number=step.round_number,
            config={} if self.parent.members is None else {"callbacks": self.parent.members},
            role=step.role,
            prepare=step.request.brief,
            stop=None if step.role == "equivalence" else self.stop,  # it does not write for the user
            ensemble_id=self.ensemble_id,
        )


def run(steps: Generator[Step, Results, None], around: Surroundings) -> Generator[str | AIMessage]:
    """Take the steps in this thread and others; yields the text and the message."""
    results: Results = ()
    with closing(steps):
        while (step := _next(steps, results)) is not None:
            results = ()
            if isinstance(step, Tell):
                around.parent.tell(step.name, step.data)
            elif isinstance(step, Compute):
                step.work()
            elif not isinstance(step, Ask):
                yield step
            else:
                asking = stream_round(step.members, around.round_request(step), around.limits, **step.manner)
                with closing(asking) as items:
                    for item in items:
                        if isinstance(item, str):
                            step.said = True
                            yield item
                        else:
                            results = item


async def arun(steps: Generator[Step, Results, None], around: Surroundings) -> AsyncGenerator[str | AIMessage]:
    """Take the steps on this event loop; see `run`."""
    results: Results = ()
    with closing(steps):
        while (step := _next(steps, results)) is not None:
            results = ()
            if isinstance(step, Tell):
                await around.parent.atell(step.name, step.data)
            elif isinstance(step, Compute):
                await asyncio.to_thread(step.work)
            elif not isinstance(step, Ask):
                yield step
            else:
                asking = astream_round(step.members, around.round_request(step), around.limits, **step.manner)
                async with aclosing(asking) as items:
                    async for item in items:
                        if isinstance(item, str):
                            step.said = True
                            yield item
                        else:
                            results = item


def _next(steps: Generator[Step, Results, None], results: Results) -> Step | None:
    """Send what came of the last step, and return the next; None at the end."""
    try:
        return steps.send(results) if results else next(steps)
    except StopIteration:
        return None
