"""Answering: the way of one query from its messages to an answer, in order.

`AnswerState` decides: whom to ask, what the answers together say, when to stop. It waits for nothing. `answer` does what it says
with threads, `aanswer` on an event loop, `astream_answer` there too, passing text on: select members, call them, compare their
answers, ask the equivalence judge about what rules leave open, and begin again or fuse; then the synthesizer may write the reply.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from hashlib import blake2b
from uuid import uuid4

from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from langchain_rlfocal._langchain import (
    EnsembleBudgetError,
    EnsembleDeadlineError,
    EnsembleModelError,
    EnsembleOverflowError,
    Parent,
)
from langchain_rlfocal.answers import Comparison, can_coincide, compare_answers, loads_first, takes_long
from langchain_rlfocal.chat_models.arguments import CallOptions
from langchain_rlfocal.chat_models.capabilities import Eligible
from langchain_rlfocal.chat_models.consensus import MAJORITY, Verdict, agree
from langchain_rlfocal.chat_models.equivalence import Judging, TextPair, pair_of
from langchain_rlfocal.chat_models.metadata import (
    BREAKER_OPEN,
    describe_fusion,
    describe_result,
    describe_selection,
    option_probs_of,
    options_of,
    refused,
    reply_of,
    synthesis_messages,
    text_pieces,
    version_of,
)
from langchain_rlfocal.chat_models.promises import Pledge
from langchain_rlfocal.chat_models.requests import Request
from langchain_rlfocal.chat_models.sessions import Turn, takes_price_factors
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.execution import (
    TOKEN_LIMITS,
    AnswerLimits,
    Result,
    Role,
    RoundRequest,
    failure_of,
    is_refusal,
)
from langchain_rlfocal.execution.drivers import aask_members, ask_members, astream_round, stream_round
from langchain_rlfocal.log import ServedAnswer
from langchain_rlfocal.online import LearningService
from langchain_rlfocal.policies import Commitment, Policy, PriorPolicy
from langchain_rlfocal.policies.targets import Aim, OperatingPoint
from langchain_rlfocal.pool import ModelPool, PoolMember
from langchain_rlfocal.records import Answer, Candidate, Failure, Query, Selection

_FLAWS = ("truncated", "filtered", "refusal")
"""What can be wrong with an answer, the least first."""


def answer(messages: list[BaseMessage], state: "AnswerState") -> Generator[str | AIMessage]:
    """Answer, with threads for the members; see `aanswer`."""
    context = state.context
    results: list[Result] = []
    while members := state.next_members():
        context.parent.tell("rlfocal_selection", describe_selection, state.selections[-1])
        relay = state.may_relay(members)
        request = context.round_request(messages, state.round_number, request=state.request)
        hedges, is_decided = ((), None) if relay else (state.hedges(), state.is_decided)
        asked = stream_round(members, request, state.limits, hedges=hedges, is_decided=is_decided, relay=relay)
        with closing(asked) as items:
            for item in items:
                if isinstance(item, str):
                    state.is_relayed = True
                    yield item
                else:
                    results = item
        state.record(results)
        while state.judging is not None and (prompt := state.judging.next_prompt(state.open_pairs())):
            request = context.round_request(prompt.messages, state.round_number, role="equivalence")
            [judged] = ask_members([state.judging.judge.member], request, state.limits)
            state.judging.take(prompt, judged)
        state.settle()
        for result in state.results_of_round:
            context.parent.tell("rlfocal_candidate", describe_result, result)
            state.check_whole(result)
    verdict = state.decide()
    synthesis = None
    if drafting := state.synthesis(messages, verdict):
        with closing(stream_round(*drafting, state.limits, relay=context.relay)) as items:
            for item in items:
                if isinstance(item, str):
                    state.is_relayed = True
                    yield item
                else:
                    synthesis = state.usable_synthesis(item[0])
    message = state.reply(verdict, synthesis)
    context.parent.tell("rlfocal_fusion", describe_fusion, verdict, synthesis, state.notes)
    if context.relay and not state.is_relayed:
        yield from text_pieces(str(message.text))
    yield message


async def aanswer(messages: list[BaseMessage], state: "AnswerState") -> AIMessage:
    """Answer, on this event loop.

    Raises:
        EnsembleError: Nobody answered.
        DisagreementError: There is no majority, and the caller wants none else.
    """
    context = state.context
    while members := state.next_members():
        await context.parent.atell("rlfocal_selection", describe_selection, state.selections[-1])
        request = context.round_request(messages, state.round_number, request=state.request)
        hedges, is_decided = state.hedges(), state.is_decided
        results = await aask_members(members, request, state.limits, hedges=hedges, is_decided=is_decided)
        await _atake_in(results, state)
    verdict = await _adecide(state)
    synthesis = None
    if drafting := state.synthesis(messages, verdict):
        [written] = await aask_members(*drafting, state.limits)
        synthesis = state.usable_synthesis(written)
    message = await state.areply(verdict, synthesis)
    await context.parent.atell("rlfocal_fusion", describe_fusion, verdict, synthesis, state.notes)
    return message


async def _atake_in(results: Sequence[Result], state: "AnswerState") -> None:
    """Compare what came of a round, and ask the equivalence judge about what rules leave open."""
    if state.comparing_takes_long(results):
        await asyncio.to_thread(state.record, results)
    else:
        state.record(results)
    while state.judging is not None and (prompt := state.judging.next_prompt(state.open_pairs())):
        request = state.context.round_request(prompt.messages, state.round_number, role="equivalence")
        [judged] = await aask_members([state.judging.judge.member], request, state.limits)
        state.judging.take(prompt, judged)
    state.settle()
    if state.context.parent.own is not None or state.is_relayed:
        for result in state.results_of_round:
            await state.context.parent.atell("rlfocal_candidate", describe_result, result)
            state.check_whole(result)


async def _adecide(state: "AnswerState") -> Verdict:
    if state.deciding_takes_long:
        await asyncio.to_thread(state.take_the_best)
    return state.decide()


async def astream_answer(messages: list[BaseMessage], state: "AnswerState") -> AsyncGenerator[str | AIMessage]:
    """Answer, on this event loop, and pass the text on as early as it is certain; see `aanswer`.

    Yields:
        The text, piece by piece; and last, always, the message.

    Raises:
        EnsembleError: Nobody answered, or one whose text was already being passed on broke off.
        DisagreementError: There is no majority, and the caller wants none else.
    """
    context = state.context
    results: list[Result] = []
    while members := state.next_members():
        await context.parent.atell("rlfocal_selection", describe_selection, state.selections[-1])
        request = context.round_request(messages, state.round_number, request=state.request)
        if state.may_relay(members):
            async with aclosing(astream_round(members, request, state.limits)) as items:
                async for item in items:
                    if isinstance(item, str):
                        state.is_relayed = True
                        yield item
                    else:
                        results = item
        else:
            hedges, is_decided = state.hedges(), state.is_decided
            results = await aask_members(members, request, state.limits, hedges=hedges, is_decided=is_decided)
        await _atake_in(results, state)
    verdict = await _adecide(state)
    synthesis = None
    if drafting := state.synthesis(messages, verdict):
        async with aclosing(astream_round(*drafting, state.limits)) as items:
            async for item in items:
                if isinstance(item, str):
                    state.is_relayed = True
                    yield item
                else:
                    synthesis = state.usable_synthesis(item[0])
    message = await state.areply(verdict, synthesis)
    await context.parent.atell("rlfocal_fusion", describe_fusion, verdict, synthesis, state.notes)
    if not state.is_relayed:
        for piece in text_pieces(str(message.text)):
            yield piece
    yield message


@dataclass(frozen=True, slots=True, kw_only=True)
class CallContext:
    """Where an answer is made, and for what kind of call.

    Attributes:
        parent: The ensemble's run.
        ensemble_id: Id of the ensemble; see `execution.enclosing_ensembles`.
        model_name: The name under which LangChain counts the tokens.
        synthesizer: Writes the reply where Fusion is unsure; None for nobody.
        stop: Stop sequences of the call.
        relay: True to pass text on as early as it is certain, False to make one message.
        service: Records the answer, and learns from what is said of it; None where nobody does.
    """

    parent: Parent
    ensemble_id: int
    model_name: str
    synthesizer: PoolMember | None = None
    stop: list[str] | None = None
    relay: bool = False
    service: LearningService | None = None

    def round_request(
        self,
        messages: Sequence[BaseMessage],
        round_number: int,
        *,
        role: Role = "member",
        request: Request | None = None,
    ) -> RoundRequest:
        """Make what is asked of every member of a round."""
        return RoundRequest(
            messages=messages,
            round_number=round_number,
            config={} if self.parent.members is None else {"callbacks": self.parent.members},
            role=role,
            prepare=(request or Request()).prepare,
            stop=None if role == "equivalence" else self.stop,  # the judge does not write for the user
            ensemble_id=self.ensemble_id,
            has_listeners=self.parent.own is not None,
        )


class AnswerState:
    """The state of one answer between its first round and its message.

    It enforces the caps on team and rounds against any policy.

    Args:
        query: What is asked.
        pool: The members.
        policy: Makes both decisions.
        options: The options of the call.
        context: Where the answer is made.
        request: What is asked of members besides the conversation.
        eligible: Who can be asked this, and why the others cannot.
        repairs: What is left out of the conversation since no provider takes it.
        limits: What the answer may take, and has taken.
        aim: How a query within a target is answered; None where there is no target.
        pledge: Whether a promise holds for the query; None where there is none.
        turn: What is known of the session that it is a step of; None where there is none.
        judging: What the equivalence judge is asked and says; None where there is no judge.

    Attributes:
        answer_id: The answer's id: that of the ensemble's run, where there is one.
        available: Members that could be asked in the first round.
        explored: True if a random team is asked, to learn from.
        probed: Members left out that are asked beside the team, to see whether they have recovered.
        aim, pledge, turn: See above.
        point: How the policy is run.
        candidates: Answers so far, labelled again after every round.
        failures: Non-answers so far, answers with a flaw among them: others are asked in place of those too.
        selections: The Decider's choices that led to asking someone.
        resting: Members that were not asked since their circuit breakers are open.
        judged_same: Members whose answers are the same by the judge alone.
        is_open_text: True if no more members were asked since open text cannot come out the same.
        is_relayed: True once text was passed on.
    """

    def __init__(
        self,
        query: Query,
        *,
        pool: ModelPool,
        policy: Policy,
        options: CallOptions,
        context: CallContext,
        request: Request,
        eligible: Eligible,
        repairs: Sequence[str],
        limits: AnswerLimits,
        aim: Aim | None = None,
        pledge: Pledge | None = None,
        turn: Turn | None = None,
        judging: Judging | None = None,
    ) -> None:
        self.query, self.policy, self.context = query, policy, context
        self.request, self.eligible, self.repairs, self.limits = request, eligible, [*repairs], limits
        self.judging, self.aim, self.pledge, self.turn = judging, aim, pledge, turn
        self.point = OperatingPoint(options.cost_weight)
        if aim is not None:
            self.point = aim.point
        elif pledge is not None:
            self.point = pledge.point
        self.candidates: list[Candidate] = []
        self.failures: list[Failure] = []
        self.selections: list[Selection] = []
        self.resting: list[str] = []
        self.judged_same: list[tuple[str, str]] = []
        self.is_open_text = self.is_relayed = False
        self._pool, self._asked = pool, set[str]()
        self.answer_id = str(context.parent.run_id or uuid4())
        # What was certified is the Decider's choice without a session: a promise goes before who holds what.
        self._is_sticky = (
            turn is not None and eligible.only is None and pledge is None and turn.member in self._present()
        )
        if turn is not None and self._is_sticky:
            turn.is_in_force = True
            self.point = OperatingPoint(self.point.cost_weight, member=turn.member)
        factors = None if turn is None or pledge is not None else turn.price_factors
        self._prices = (
            {"price_factors": factors}
            if factors and takes_price_factors(getattr(policy.select, "__func__", policy.select))
            else {}
        )
        self.explore = options.explore if eligible.only is None and pledge is None and not self._is_sticky else 0.0
        self.explored = self.explore > 0 and _draw(self.answer_id) < self.explore
        self._named = eligible.only or self.point.member
        self._is_pinned = False
        if self.explored:
            self.point = OperatingPoint(self.point.cost_weight)  # as large a team as the caller allows
        self.available: tuple[str, ...] = ()
        self.probed: tuple[str, ...] = ()
        self._flawed: list[Candidate] = []
        self._option_letters = frozenset[str]() if request.wants_object else options_of(query.text)
        self._comparison: Comparison | None = None
        self._texts: tuple[str | None, ...] = ()
        # A policy sees its team as a share of the largest that is possible, which training caps the same way.
        self.options, self._largest_team = options, min(options.max_team, max(len(self._present()), 1))
        # What an untrained vote cannot use is not asked for.
        is_vote = isinstance(policy, PriorPolicy) and eligible.only is None and request.is_plain
        self._only_votes = is_vote and judging is None and context.synthesizer is None

    # ---- whom to ask

    @property
    def round_number(self) -> int:
        """The round in progress, counted from 1; 0 before the first."""
        return len(self.selections)

    @property
    def max_team(self) -> int:
        """How many members may be asked over all rounds, no more than can be asked.

        Where the operating point's team is smaller than the caller's, others are asked in place of who failed.
        """
        if self.point.largest_team is None:
            return self._largest_team + len(self.probed)
        return min(self.point.largest_team + len(self.failures), self._largest_team) + len(self.probed)

    def _present(self) -> list[str]:
        """Return who can be asked now, in the pool's order: for the Decider a member with an open breaker is absent."""
        if not self.limits.is_any_breaker_open:
            return [*self.eligible.members]
        return [name for name in self.eligible.members if name in self._asked or not self.limits.is_breaker_open(name)]

    def next_members(self) -> list[PoolMember]:
        """Open the next round and return whom to ask in it; nobody means that it is time to fuse.

        The cap on rounds binds once someone has answered: until then others are asked, as the team's cap allows.
        """
        present = self._present()
        self.resting = [name for name in self.eligible.members if name not in present]
        if not self._asked:
            self.available = tuple(present)
            self._is_pinned = self._named in present
        room = self.max_team - len(self._asked)
        if room < 1 or self.limits.is_late or self._asked.issuperset(present):
            return []
        max_team = self._useful_team()
        self.is_open_text = max_team < self.max_team
        room = max_team - len(self._asked)
        if room < 1 or (self.candidates and self.round_number >= self.options.max_rounds):
            return []
        only = self.eligible.only or (self.point.member if self.point.member in present and not self._asked else None)
        if only is not None:
            selection = Selection(self.round_number + 1, (only,), {only: 1.0})
        elif self.explored and not self._asked:
            selection = _random_team(self.answer_id, present, room)
        else:
            selection = self.policy.select(
                self.query,
                self.candidates,
                self.failures,
                available=tuple(present),
                round_number=min(self.round_number + 1, self.options.max_rounds),
                max_rounds=self.options.max_rounds,
                max_team=max_team,
                cost_weight=self.point.cost_weight,
                **self._prices,
            )
        chosen = tuple(name for name in selection.members if name in present and name not in self._asked)[:room]
        if chosen and self.eligible.left_out and not self._asked:
            self.probed = self._probes()
            chosen += self.probed
        if chosen:
            self.selections.append(Selection(self.round_number + 1, chosen, selection.probabilities))
            self._asked.update(chosen)
        return [self._pool[name] for name in chosen]

    def _probes(self) -> tuple[str, ...]:
        """Return the members left out that are asked nevertheless, beside the team."""
        names = () if self.context.service is None else self.context.service.probes(self.answer_id)
        return tuple(n for n in names if n in self.eligible.left_out and not self.limits.is_breaker_open(n))

    def _useful_team(self) -> int:
        """Return how many members may be asked over all rounds: of open text, which cannot agree, only as many as must answer."""
        if (
            not self._only_votes
            or self.explored
            or any(self.request.label_of(one.message) is not None for one in self.candidates)
        ):
            return self.max_team
        texts = [candidate.text for candidate in self.candidates]
        if can_coincide(self.query.text, texts, self.options.answer_kind):
            return self.max_team
        num_failed = len(self._asked) - len(self.candidates)
        return min(self.max_team, num_failed + max(self.options.min_candidates, len(self.candidates)))

    def hedges(self) -> list[PoolMember]:
        """Return who may be asked in addition to slow members, the Decider's next choice first, as the team has room."""
        # Who goes on alone may be slow like anybody; only the Decider's own team is as small as it wants it.
        room = (self._largest_team if self._is_sticky else self.max_team) - len(self._asked)
        if room < 1 or not self.limits.config.hedge or self.eligible.only is not None:
            return []
        chances, competence = self.selections[-1].probabilities, self.policy.competence(self.query)
        free = [name for name in self._present() if name not in self._asked]
        free.sort(key=lambda name: (-chances.get(name, 0.0), -competence.get(name, 0.0)))
        return [self._pool[name] for name in free[:room]]

    @property
    def _is_last_round(self) -> bool:
        return self.round_number >= self.options.max_rounds or len(self._asked) >= self.max_team

    def may_relay(self, members: Sequence[PoolMember]) -> bool:
        """Tell whether the text of the member that is asked now can be passed on while it comes.

        It can if it will be the answer: nobody else is asked, now or later. Where the query lists options, the scores that
        come with its choice may still speak for another.
        """
        is_last = self._is_last_round or (self.is_open_text and self.options.min_candidates == 1)
        is_alone = is_last and len(members) == 1 and not self.candidates
        return self.context.relay and is_alone and not self._option_letters and self.request.may_relay(members[0].model)

    def is_decided(self, results: Sequence[Result], running: Sequence[str]) -> bool:
        """Tell whether no answer of the members still running can change the result.

        It is where no other round can follow, no text still to come changes the labels of those that are here, and the policy promises that the present winner stays the winner, in the words of the same member.

        Args:
            results: What came of this round so far.
            running: Names of the members that still run.
        """
        arrived = [one for one in results if isinstance(one, Candidate) and not self._is_set_aside(one)]
        candidates = [*self.candidates, *arrived]
        promise = getattr(self.policy, "commitment", None)
        if (
            promise is None
            or self.explored  # what everyone says is to be known
            or self.probed
            or self.judging is not None  # it may find answers to be the same that no rule does
            or not (self._is_last_round or self._asked.issuperset(self.eligible.members))
            or not arrived
            or len(candidates) < self.options.min_candidates
            or any(candidate.flaw for candidate in candidates)  # who still runs may have none
            or not isinstance(self.options.answer_kind, str)
            or takes_long([candidate.text for candidate in arrived])  # comparing may hold up the event loop
            or self._competence_of([candidate.member for candidate in candidates]) <= self._competence_of(running)
        ):
            return False
        labelled = self._labelled(candidates)
        acts = [self.request.label_of(candidate.message) is not None for candidate in labelled]
        is_mixed = any(acts) and not all(acts)  # a text is labelled by what the calls look like
        if is_mixed or not (all(acts) or self._compared(self._texts).is_final):
            return False
        failures = [one if isinstance(one, Failure) else failure_of(one) for one in results if one not in arrived]
        kept: Commitment = promise(self.query, labelled, [*self.failures, *failures], running=running)
        # An answer that the synthesizer would write over is not certain yet.
        least = 0.0 if self.context.synthesizer is None else self.options.synthesize_below
        return kept.author_is_final and kept.confidence > MAJORITY and kept.confidence >= least

    def _competence_of(self, members: Sequence[str]) -> float:
        competence = self.policy.competence(self.query)
        return sum(competence[name] for name in members)

    # ---- comparing

    def comparing_takes_long(self, results: Sequence[Result]) -> bool:
        """Tell whether comparing these answers may hold up an event loop."""
        texts = {result.text for result in results if isinstance(result, Candidate)}
        return not isinstance(self.options.answer_kind, str) or loads_first(texts) or takes_long(texts)

    def record(self, results: Sequence[Result]) -> None:
        """Take in what came of a round, and label all answers so far, since groups can change with every answer.

        A text that has been passed on is the answer, also with a flaw.
        """
        arrived = [result for result in results if isinstance(result, Candidate)]
        aside = [] if self.is_relayed else [candidate for candidate in arrived if self._is_set_aside(candidate)]
        self._asked.update([result.member for result in results])  # hedges too
        for one in arrived:
            self.limits.shared.fingerprints.see(one.member, version_of(one.message))
        if len(arrived) < len(results) or aside:
            self._flawed += aside
            self.failures += [result for result in results if isinstance(result, Failure)]
            self.failures += [failure_of(candidate) for candidate in aside]
            arrived = [candidate for candidate in arrived if candidate not in aside]
        self.candidates = self._labelled([*self.candidates, *arrived])

    def _is_set_aside(self, candidate: Candidate) -> bool:
        """Tell whether an answer counts for none yet; one that breaks off where the caller wanted it to is the answer."""
        if candidate.flaw is None:
            return False
        return candidate.flaw != "truncated" or not any(self.request.arguments.get(name) for name in TOKEN_LIMITS)

    def _labelled(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Give candidates that say the same the same label."""
        # A refusal says nothing that another could say too, and holds no object.
        acts = [None if one.flaw == "refusal" else self.request.label_of(one.message) for one in candidates]
        texts = [
            one.text if act is None and one.flaw != "refusal" else None
            for one, act in zip(candidates, acts, strict=True)
        ]
        comparison = self._compared(texts)
        if self.judging is not None:
            same = [pair for pair in comparison.open_pairs if self._are_same(*pair)]
            comparison = comparison.merged(same)
        acting_kind = "json" if self.request.wants_object else "tool_calls"
        labelled = []
        for one, act, text_label, kind in zip(candidates, acts, comparison.labels, comparison.kinds, strict=True):
            if act is not None:
                labelled.append(one.labelled(act, acting_kind, one.option_probs))
                continue
            label = text_label or None
            if label is not None and label in acts:  # a text that reads like tool calls does not make them
                label = f"text: {label}"
            probs = option_probs_of(one.message, label, options=self._option_letters)
            labelled.append(one.labelled(label, kind, probs))
        return labelled

    def _compared(self, texts: Sequence[str | None]) -> Comparison:
        """Compare texts by the rules; remembered, since each round, and the end, compares the same."""
        if self._comparison is None or self._texts != tuple(texts):
            self._texts = tuple(texts)
            self._comparison = compare_answers(texts, self.options.answer_kind, query=self.query.text)
        return self._comparison

    def open_pairs(self) -> list[TextPair]:
        """Return pairs of texts that rules leave open and the judge has not judged: one for each two labels."""
        texts, pairs = self._texts, self._compared(self._texts).open_pairs
        return [pair_of(texts[i] or "", texts[j] or "") for i, j in pairs if self._are_same(i, j) is None]

    def settle(self) -> None:
        """Label the candidates again by the judge's verdicts."""
        if self.judging is None:
            return
        open_pairs = self._compared(self._texts).open_pairs
        self.candidates = self._labelled(self.candidates)
        judged = [(self.candidates[i], self.candidates[j]) for i, j in open_pairs]
        self.judged_same = [(a.member, b.member) for a, b in judged if a.answer == b.answer]

    def _are_same(self, i: int, j: int) -> bool | None:
        """Tell whether the judge called two answers the same, by any two texts that give them; None where it was not asked."""
        assert self.judging is not None, "asked only where there is a judge"
        labels = self._compared(self._texts).labels
        ours, theirs = (
            [text or "" for text, label in zip(self._texts, labels, strict=True) if label == labels[at]]
            for at in (i, j)
        )
        verdicts = [self.judging.verdict(pair_of(a, b)) for a in ours for b in theirs]
        known = [same for same in verdicts if same is not None]
        return all(known) if known else None

    @property
    def notes(self) -> list[str]:
        """Why answers could not be compared, a line each."""
        rules = self._compared(self._texts).notes if self._texts else ()
        return [*rules, *(self.judging.notes if self.judging is not None else ())]

    @property
    def results_of_round(self) -> list[Result]:
        """What came of the round in progress."""
        results: list[Result] = [*self.candidates, *self.failures]
        return [result for result in results if result.round == self.round_number]

    def check_whole(self, result: Result) -> None:
        """Check that an answer that was passed on has come to its end.

        Raises:
            EnsembleError: It broke off after its first words, which nobody can take back.
        """
        if not self.is_relayed or not isinstance(result, Failure):
            return
        kinds = {"deadline": EnsembleDeadlineError, "budget": EnsembleBudgetError}
        raise kinds.get(result.kind, EnsembleModelError)(
            f"`{result.member}` broke off while its text was being passed on: {result.kind}: {result.reason.rstrip('.')}. Ask "
            "again; `invoke`, or `streaming=False`, lets another member stand in.",
            failures={result.member: f"{result.kind}: {result.reason}"},
            is_retryable=result.is_retryable,
        ) from result.error

    # ---- deciding

    @property
    def deciding_takes_long(self) -> bool:
        """True if comparing answers with a flaw, where there are no others, may hold up an event loop."""
        return bool(self._flawed) and self.comparing_takes_long([*self.candidates, *self._flawed])

    def take_the_best(self) -> None:
        """Leave answers with a flaw out where there are others; where there are none, take the best of them.

        Where an object or a call must come, a refusal is taken for one only if LangChain knows it for one.
        """
        if not self._flawed and not any(candidate.flaw for candidate in self.candidates):
            return
        is_bound = self.request.wants_object or self.request.is_forced
        withheld = [one for one in self._flawed if is_bound and one.flaw == "refusal" and not is_refusal(one.message)]
        given = [*self.candidates, *(one for one in self._flawed if one not in withheld)]
        best = min(map(_flaw_rank, given), default=0)
        kept = [candidate for candidate in given if _flaw_rank(candidate) == best]
        if kept != self.candidates:
            names = {candidate.member for candidate in given}
            others = [failure for failure in self.failures if failure.member not in names]
            self.failures = [*others, *(failure_of(one) for one in given if one not in kept)]
            self.candidates, self._flawed = self._labelled(kept), []

    def decide(self) -> Verdict:
        """Decide what the candidates together do.

        Raises:
            EnsembleError: Nobody answered, or too few before the answer was cut short; it is also LangChain's `ModelError`.
            DisagreementError: There is no majority, and the caller wants none else.
        """
        self.take_the_best()
        is_cut_short = self.limits.is_late or any(failure.kind in {"deadline", "budget"} for failure in self.failures)
        if not self.candidates or (is_cut_short and len(self.candidates) < self.options.min_candidates):
            raise self._too_few_answered()
        fused = self._fused()
        if all(candidate.flaw == "refusal" for candidate in self.candidates):
            return refused(self.candidates, fused)
        how = self.options.on_disagreement
        return agree(self.candidates, fused, self.request, on_disagreement=how, is_relayed=self.is_relayed)

    def close(self) -> None:
        """Count what the query took towards its target, however it ended; later calls have no effect."""
        if self.aim is not None:
            spent = self.limits.ledger.spent
            taken = {
                "calls": len(self._asked),
                "usd": spent.usd,
                "tokens": spent.tokens,
                "seconds": self.limits.elapsed_s,
            }
            self.aim.took(taken[self.aim.target.unit])
        if self.turn is not None:
            self.turn.note([*self.candidates, *self.failures], self.limits.clock())

    def _fused(self) -> Answer:
        """Have the policy resolve the conflict; its answer is completed, since a user's own may leave out what weighs nothing."""
        answer = self.policy.fuse(self.query, self.candidates, self.failures, max_team=self.max_team)
        own: dict[str, tuple[str, ...]] = {}
        for candidate in self.candidates:
            label = candidate.answer or ""
            own[label] = (*own.get(label, ()), candidate.member)
        if own.keys() == answer.supporters.keys() == answer.weights.keys() and "" not in own:
            return answer
        supporters = own | {label: names for label, names in answer.supporters.items() if names or label not in own}
        weights = {label: answer.weights.get(label, 0.0) for label in [*answer.weights, *supporters]}
        if "" in weights:  # what nobody can read agrees with nothing
            weights[""] = 0.0
            share = sum(candidate.answer is not None for candidate in self.candidates) / len(self.candidates)
            scale = min(share / max(sum(weights.values()), 1e-30), 1.0)
            weights = {label: weight * scale for label, weight in weights.items()}
        return replace(answer, weights=weights, supporters=supporters)

    def synthesis(
        self, messages: Sequence[BaseMessage], verdict: Verdict
    ) -> tuple[list[PoolMember], RoundRequest] | None:
        """Return the synthesizer and what it is asked where it should write; None where the verdict stands.

        It writes where Fusion is unsure between texts. Tool calls and objects are never mixed by it.
        """
        synthesizer = self.context.synthesizer
        is_sure = verdict.answer.confidence >= self.options.synthesize_below or len(self.candidates) == 1
        if synthesizer is None or is_sure or verdict.action != "text":
            return None
        is_refused = all(candidate.flaw == "refusal" for candidate in self.candidates)
        if is_refused or any(self.request.acts(candidate.message) for candidate in self.candidates):
            return None
        drafted = synthesis_messages(messages, self.candidates, verdict.answer)
        return [synthesizer], self.context.round_request(drafted, self.round_number, role="synthesizer")

    def usable_synthesis(self, result: Result) -> Result:
        """Check what the synthesizer wrote; an answer with a flaw is a failure, unless it was passed on already."""
        self.check_whole(result)
        return failure_of(result) if isinstance(result, Candidate) and result.flaw and not self.is_relayed else result

    def reply(self, verdict: Verdict, synthesis: Result | None) -> AIMessage:
        """Make the message that the answer ends in, and have the answer recorded."""
        message = reply_of(self, verdict, synthesis=synthesis, model_name=self.context.model_name)
        if self.turn is not None:  # before the message is there: the next step may begin with it
            self.turn.note([*self.candidates, *self.failures], self.limits.clock())
            self.turn.note_answer(verdict.answer.member, [call["id"] or "" for call in message.tool_calls])
        if self.context.service is not None:
            self.context.service.record(self.served(verdict, synthesis))
        return message

    async def areply(self, verdict: Verdict, synthesis: Result | None) -> AIMessage:
        """Make the message, and have the answer recorded; see `reply`."""
        if self.explored and self.comparing_takes_long([*self.candidates, *self._flawed]):  # which is done again
            return await asyncio.to_thread(self.reply, verdict, synthesis)
        return self.reply(verdict, synthesis)

    # ---- recording

    def served(self, verdict: Verdict, synthesis: Result | None) -> ServedAnswer:
        """Return what is recorded of the answer; nobody is credited with words that are no member's own."""
        answer, own = verdict.answer, not verdict.merged and not isinstance(synthesis, Candidate)
        if own and verdict.action == "text" and answer.member is not None:
            own = any(one.member == answer.member and one.text == verdict.text for one in self.candidates)
        return ServedAnswer(
            id=self.answer_id,
            query=self.query,
            available=self.available,
            policy_id=self.policy.policy_id,
            cost_weight=self.point.cost_weight,
            max_team=min(self.point.largest_team or self._largest_team, self._largest_team),
            max_rounds=self.options.max_rounds,
            candidates=tuple(self.candidates),
            failures=tuple(self.failures),
            answer=answer if own else replace(answer, member=None, answer=None),
            explore=self.explore,
            explored=self.explored,
            propensity=self._propensity(),
            pinned=self._is_pinned,
            price_factors=self._prices.get("price_factors", {}),
        )

    def _propensity(self) -> dict[str, float]:
        """Return the probability with which each member was asked, over the draw of whether, and of whom, to explore.

        A random team of k of n members is asked with probability ε, so that a member is asked with probability ε k/n, and
        1 - ε more if the policy asks it. Where a random team was asked, the policy's choices are known as long as they are
        among the team; of a member that it might have chosen after that it is unknown, and of hedges. Who is not named is unknown.
        """
        chosen = {name for selection in self.selections for name in selection.members}.difference(self.probed)
        share = 0.0 if self.context.service is None else self.context.service.serving.probe_share
        probed = dict.fromkeys(self.probed, share)
        if not self.explore:
            return {**dict.fromkeys(sorted(chosen), 1.0), **probed}
        by_policy, is_all = self._chosen_by_policy() if self.explored else (chosen, True)
        by_chance = self.explore * min(self._largest_team, len(self.available)) / len(self.available)
        known = sorted(chosen if is_all else chosen & by_policy)
        return {name: by_chance + (1 - self.explore) * (name in by_policy) for name in known} | probed

    def _chosen_by_policy(self) -> tuple[set[str], bool]:
        """Return whom the policy would have asked instead of a random team, and whether it would have asked nobody else.

        What it does is known as long as everyone that it would ask is among that team.
        """
        twin = AnswerState(
            self.query,
            pool=self._pool,
            policy=self.policy,
            options=replace(self.options, explore=0.0),
            context=self.context,
            request=self.request,
            eligible=Eligible(self.available, {}, frozenset()),
            repairs=(),
            limits=AnswerLimits(),
            aim=self.aim,
            turn=self.turn,
            judging=self.judging,
        )
        given: list[Result] = [*self.candidates, *self.failures]
        results = {result.member: result for result in given}
        chosen: set[str] = set()
        while members := [member.name for member in twin.next_members()]:
            chosen.update(members)
            known = [results[name] for name in members if name in results]
            if known:
                twin.record(known)
                twin.settle()
            if len(known) < len(members):  # what the others would have said matters only where it may ask still more
                has_rounds = twin.round_number < self.options.max_rounds or not twin.candidates
                has_members = len(chosen) < min(self._largest_team, len(self.available))
                return chosen, not (has_rounds and has_members)
        return chosen, True

    # ---- failing

    def _too_few_answered(self) -> EnsembleModelError:
        reasons = {f.member: _reason_of(f) for f in self.failures}
        unfit = {n: r for n, r in self.eligible.excluded.items() if self.eligible.only in {None, n}}
        reasons |= {name: f"not asked: it {reason}" for name, reason in unfit.items()}
        reasons |= dict.fromkeys(self.resting, f"not asked: {BREAKER_OPEN}")
        kinds = {failure.kind for failure in self.failures}
        is_late = self.limits.is_late or "deadline" in kinds
        too_long = {f.member for f in self.failures if isinstance(f.error, ContextOverflowError)}
        kind: type[EnsembleModelError] = EnsembleModelError
        if is_late:
            kind = EnsembleDeadlineError
        elif "budget" in kinds:
            kind = EnsembleBudgetError
        elif reasons and too_long | self.eligible.overflowing == set(reasons):
            kind = EnsembleOverflowError
        causes = "; ".join(f"{name}: {reason.rstrip('.')}" for name, reason in reasons.items())
        rule = "At least one member must answer, and none " + (f"of {len(reasons)} did." if reasons else "was asked.")
        if self.candidates:
            least = self.options.min_candidates
            rule = f"At least {least} members must answer (`min_candidates`), and {len(self.candidates)} did."
        error = kind(
            f"{rule} {f'{causes}. ' if causes else ''}{self._way_out(reasons, is_late=is_late)}",
            failures=reasons,
            is_retryable=bool(self.resting) or any(failure.is_retryable for failure in self.failures),
        )
        errors = (_last_attempt(failure).error or failure.error for failure in self.failures)
        error.__cause__ = next((each for each in errors if each is not None), None)
        return error

    def _way_out(self, reasons: Mapping[str, str], *, is_late: bool) -> str:
        """Say what a caller can do about a missing answer."""
        if is_late:
            return f"Raise `deadline_s` ({self.limits.config.deadline_s:g} s), or ask faster members."
        if any(failure.kind == "budget" for failure in self.failures):
            return "Raise the budget that is named; `reset_spending()` sets what counts towards `budget` to zero."
        if self.resting:
            return "Ask again later, or close the breakers by `reset_breakers()`."
        answered = {candidate.member for candidate in self.candidates}
        left = [name for name in self.eligible.members if name not in reasons and name not in answered]
        if left:
            return f"Not asked: {', '.join(left)}; raise `max_team` to let them stand in."
        return "Every member that can be asked was; add a member that fails differently."


def _draw(answer_id: str) -> float:
    """Draw from [0, 1): a hash of the answer's id, so that who fixes the id fixes the draw."""
    return int.from_bytes(blake2b(answer_id.encode(), digest_size=8).digest()) / 2**64


def _random_team(answer_id: str, members: Sequence[str], size: int) -> Selection:
    """Select a team in the first round, each of that size with the same probability; the answer's id fixes it."""
    size = min(size, len(members))
    team = random.Random(answer_id).sample(members, size)  # noqa: S311  # no secret
    return Selection(1, tuple(team), dict.fromkeys(members, size / len(members)))


def _flaw_rank(candidate: Candidate) -> int:
    return 0 if candidate.flaw is None else 1 + _FLAWS.index(candidate.flaw)


def _reason_of(failure: Failure) -> str:
    """Say why a member gave no answer, and of one that was cut off also what its last attempt had come to."""
    reason, last = f"{failure.kind}: {failure.reason}", _last_attempt(failure)
    return reason if last is failure else f"{reason.rstrip('.')}, after {last.kind}: {last.reason}"


def _last_attempt(failure: Failure) -> Failure:
    """Return the attempt that says most of a failure: that time or money was over says less than the attempt before."""
    is_cut_off = failure.kind in {"budget", "deadline", "timeout", "breaker_open", "rate_limit"}
    return failure.retries[-1] if is_cut_off and failure.retries else failure


def query_of(messages: Sequence[BaseMessage], *, task: str | None) -> Query:
    """Make the query of a conversation: the text of its last human message, or of its last where none is human.

    Raises:
        InputError: There is no message, or none that says anything.
    """
    if not any(_has_content(message) for message in messages):
        raise InputError(
            f"At least one message must have content, got {len(messages)} message(s) without. "
            'Ask something: model.invoke("...").'
        )
    human = [message for message in messages if isinstance(message, HumanMessage)]
    return Query(text=str((human or messages)[-1].text), task=task)


def _has_content(message: BaseMessage) -> bool:
    has_calls = isinstance(message, AIMessage) and bool(message.tool_calls)
    return has_calls or bool(message.content.strip() if isinstance(message.content, str) else message.content)
