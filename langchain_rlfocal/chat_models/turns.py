"""Turns: one query's way through the rounds, from nobody asked to an answer.

A `Turn` keeps what the two decisions need: who was asked, what came of it, and what is still allowed. It enforces the
caps on team and rounds, whatever the policy says. It asks nobody itself, so that the sync and the async river are the
same decisions with another way of waiting.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from langchain_rlfocal._langchain import (
    EnsembleBudgetError,
    EnsembleDeadlineError,
    EnsembleModelError,
    EnsembleOverflowError,
)
from langchain_rlfocal.answers import Comparison, KindLike, can_coincide, compare_answers, loads_first, takes_long
from langchain_rlfocal.chat_models.consensus import MAJORITY
from langchain_rlfocal.chat_models.equivalence import Hearing, TextPair, pair_of
from langchain_rlfocal.chat_models.options import option_probs_of, options_of
from langchain_rlfocal.chat_models.profiles import Needs, fit_members, needs_of, unfit
from langchain_rlfocal.chat_models.requests import Request
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.execution import TOKEN_LIMITS, AnswerLimits, failure_of, is_refusal
from langchain_rlfocal.policies import Commitment, Policy, PriorPolicy
from langchain_rlfocal.pool import ModelPool, PoolMember
from langchain_rlfocal.records import Answer, Candidate, Failure, Query, Selection

_FLAWS = ("truncated", "filtered", "refusal")
"""What can be wrong with an answer, the least first."""

RESTING = "circuit breaker open"


@dataclass(frozen=True, slots=True)
class Knobs:
    """What a caller may set for one call.

    Attributes:
        max_team: How many members may be asked over all rounds, at least 1.
        max_rounds: How many rounds there may be, at least 1.
        cost_weight: What asking the whole pool once is worth, in units of score; finite, not negative.
        target_calls: Mean calls a query that the cost weight was chosen for, None where it was given itself.
        task: Task label that tells the policy what kind of query this is, or None.
        min_candidates: How many members must have answered where the deadline or a budget cuts the answer short, at least 1.

    Raises:
        InputError: A number is outside its range, or the task is no text.
    """

    max_team: int
    max_rounds: int
    cost_weight: float
    target_calls: float | None
    task: str | None
    min_candidates: int = 1

    def __post_init__(self) -> None:
        for name in ("max_team", "max_rounds", "min_candidates"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"`{name}` must be a whole number of at least 1, got {value!r}. One member is a team.")
        weight = self.cost_weight
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise InputError(
                f"`cost_weight` must be finite and not negative, got {weight!r}. 0 means that calls are free."
            )
        if self.task is not None and not isinstance(self.task, str):
            raise InputError(f"`task` must be a text or None, got {type(self.task).__name__}.")


@dataclass(frozen=True, slots=True)
class Eligible:
    """Who can be asked something, by what members say of themselves.

    Attributes:
        members: Names of those who can, in the pool's order.
        excluded: Why each of the others cannot.
        overflowing: Those for whom only the conversation is too long.
        only: The member that the call names, None if it names none.
    """

    members: tuple[str, ...]
    excluded: Mapping[str, str]
    overflowing: frozenset[str]
    only: str | None = None


def eligible_of(pool: ModelPool, messages: Sequence[BaseMessage], *, request: Request, only: str | None) -> Eligible:
    """Find who can be asked something.

    Args:
        pool: The members.
        messages: The conversation, whose images and length not every member may take.
        request: What else is asked, which may take a member that knows tools.
        only: The member that the call names, None if it names none.
    """
    models = {member.name: member.model for member in pool if only in {None, member.name}}
    needs = needs_of(messages, tools=False)
    tools = {name for name, model in models.items() if request.needs_tools(model)}
    # Tools first, since who takes an image counts only among those that can be asked at all.
    toolless = {name: unfit(models[name], Needs(tools=True, inputs=frozenset(), tokens=0)) for name in tools}
    without = {name: reason for name, reason in toolless.items() if reason is not None}
    members, others = fit_members({name: model for name, model in models.items() if name not in without}, needs)
    excluded = {**without, **others}
    overflowing = frozenset(
        name for name in excluded if unfit(models[name], replace(needs, tokens=0, tools=name in tools)) is None
    )
    named = {name: f"is not `{only}`, which the call names" for name in pool.names if name not in models}
    return Eligible(members, {**excluded, **named}, overflowing, only)


class Turn:
    """The state of one query between its first round and its answer.

    Attributes:
        policy: Who decides.
        knobs: What the caller set, the team no larger than those who can be asked.
        candidates: Answers so far, labelled anew after every round.
        failures: Non-answers so far, answers with a flaw among them: others stand in for those too, as the team has room.
        selections: The Decider's choices that led to asking someone.
        request: What is asked of members beside the conversation.
        eligible: Who can be asked this, and why the others cannot.
        repairs: What is left out of the conversation since no member could read it.
        limits: What the answer may take, and what it has taken.
        resting: Members that were left alone, since they had failed too often of late.
        hearing: What the equivalence judge is asked and says; None where there is no judge.
        judged_same: Members whose answers are the same by the judge alone.
        is_open_text: True if nobody more was asked since such answers cannot come out the same.
    """

    def __init__(
        self,
        query: Query,
        *,
        pool: ModelPool,
        policy: Policy,
        knobs: Knobs,
        answer_kind: KindLike,
        request: Request,
        eligible: Eligible,
        repairs: Sequence[str],
        limits: AnswerLimits,
        hearing: Hearing | None = None,
        is_written_over: bool = False,
    ) -> None:
        self._query, self._pool = query, pool
        self._options = frozenset() if request.wants_object else options_of(query.text)
        self.request, self.eligible, self.repairs = request, eligible, list(repairs)
        self.policy, self.limits = policy, limits
        self.candidates: list[Candidate] = []
        self.failures: list[Failure] = []
        self._flawed: list[Candidate] = []
        self.selections: list[Selection] = []
        self.resting: list[str] = []
        # A policy sees its team as a share of the largest there can be, which training caps the same way.
        self.knobs = replace(knobs, max_team=min(knobs.max_team, max(len(self._present()), 1)))
        self._answer_kind: KindLike = answer_kind
        self.hearing, self.is_open_text = hearing, False
        self.judged_same: list[tuple[str, str]] = []
        # What an untrained vote cannot use is not asked for.
        is_vote = isinstance(policy, PriorPolicy) and eligible.only is None and request.is_plain
        self._only_votes = is_vote and hearing is None and not is_written_over
        self._comparison: Comparison | None = None
        self._texts: tuple[str | None, ...] = ()

    @property
    def round_number(self) -> int:
        """The round in progress, counted from 1; 0 before the first."""
        return len(self.selections)

    @property
    def _asked(self) -> set[str]:
        chosen = {name for selection in self.selections for name in selection.members}
        return chosen.union((c.member for c in self.candidates), (f.member for f in self.failures))

    def _present(self) -> list[str]:
        """Return who can be asked now, in the pool's order: to the Decider a resting member is absent."""
        asked = self._asked
        return [name for name in self.eligible.members if name in asked or not self.limits.is_breaker_open(name)]

    def next_members(self) -> list[PoolMember]:
        """Open the next round and return whom to ask in it; nobody means that it is time to fuse.

        The cap on rounds binds once someone has answered: until then others may stand in, as the team's cap allows.
        """
        room, present = self.knobs.max_team - len(self._asked), self._present()
        self.resting = [name for name in self.eligible.members if name not in present]
        is_last = bool(self.candidates) and self.round_number >= self.knobs.max_rounds
        max_team = self._useful_team()
        if room < 1 or self.limits.is_late or set(present) <= self._asked:
            return []
        self.is_open_text = max_team < self.knobs.max_team
        room = max_team - len(self._asked)
        if room < 1 or is_last:
            return []
        selection = self._named() or self.policy.select(
            self._query,
            self.candidates,
            self.failures,
            available=tuple(present),
            round_number=min(self.round_number + 1, self.knobs.max_rounds),
            max_rounds=self.knobs.max_rounds,
            max_team=max_team,
            cost_weight=self.knobs.cost_weight,
        )
        free = set(present) - self._asked
        chosen = tuple(name for name in selection.members if name in free)[:room]
        if chosen:
            self.selections.append(replace(selection, round=self.round_number + 1, members=chosen))
        return [self._pool[name] for name in chosen]

    def _useful_team(self) -> int:
        """Return how many members may be asked over all rounds: of open text as many as must answer, and who stands in."""
        texts = [candidate.text for candidate in self.candidates]
        is_plain = all(self.request.label_of(candidate.message) is None for candidate in self.candidates)
        if not self._only_votes or not is_plain or can_coincide(self._query.text, texts, self._answer_kind):
            return self.knobs.max_team
        in_vain = len(self._asked) - len(self.candidates)
        return min(self.knobs.max_team, in_vain + max(self.knobs.min_candidates, len(self.candidates)))

    def hedges(self) -> list[PoolMember]:
        """Return who may be asked beside slow members of this round, the Decider's next choice first, as the team has room."""
        room = self.knobs.max_team - len(self._asked)
        if room < 1 or not self.limits.config.hedge or self.eligible.only is not None:
            return []
        sure, competence = self.selections[-1].probabilities, self.policy.competence(self._query)
        free = [name for name in self._present() if name not in self._asked]
        free.sort(key=lambda name: (-sure.get(name, 0.0), -competence.get(name, 0.0)))
        return [self._pool[name] for name in free[:room]]

    def is_settled(self, results: Sequence[Candidate | Failure], running: Sequence[str], *, at_least: float) -> bool:
        """Tell whether the answer is certain, whatever the members still running say.

        It is where no other round can follow, nothing that they say can change what the answers so far are taken for, and
        the policy promises that the present winner stays the winner, in the words of the same member.

        Args:
            results: What came of this round so far.
            running: Names of the members that still run.
            at_least: What confidence the answer must keep.
        """
        if self.hearing is not None:  # it may find answers to be the same that no rule does
            return False
        promise = getattr(self.policy, "commitment", None)
        ends_here = self.round_number >= self.knobs.max_rounds or set(self.eligible.members) <= self._asked
        ends_here = ends_here or len(self._asked) >= self.knobs.max_team
        arrived = [result for result in results if isinstance(result, Candidate) and not self._is_set_aside(result)]
        if any(candidate.flaw for candidate in [*self.candidates, *arrived]):  # who still runs may have none
            return False
        is_enough = len(self.candidates) + len(arrived) >= self.knobs.min_candidates
        if (
            promise is None
            or not ends_here
            or not arrived
            or not is_enough
            or takes_long([one.text for one in arrived])
        ):
            return False
        if not isinstance(self._answer_kind, str) or takes_long([one.text for one in arrived]):
            return False  # comparing may hold up the event loop
        candidates = self._label([*self.candidates, *arrived])
        acts = [self.request.label_of(candidate.message) is not None for candidate in candidates]
        if any(acts) and not all(acts):  # a text is labelled by what the calls look like
            return False
        texts = [candidate.text for candidate, acting in zip(candidates, acts, strict=True) if not acting]
        if running and not compare_answers(texts, self._answer_kind, query=self._query.text).is_final:
            return False
        aside = [result for result in results if isinstance(result, Candidate) and result not in arrived]
        failures = self.failures + [result for result in results if isinstance(result, Failure)]
        failures += [failure_of(candidate) for candidate in aside]
        kept: Commitment = promise(self._query, candidates, failures, running=running)
        return kept.author_is_final and kept.confidence > MAJORITY and kept.confidence >= at_least

    def _named(self) -> Selection | None:
        """Choose the member that the call names; None if it names none."""
        only = self.eligible.only
        return None if only is None else Selection(self.round_number + 1, (only,), {only: 1.0})

    @property
    def is_decided(self) -> bool:
        """True if what the member being asked now says will be the answer.

        It is the only one, and nobody can be asked after it. Where the query lists options, the scores that come with its
        choice may still speak for another.
        """
        asked = len(self._asked)
        is_last = self.round_number >= self.knobs.max_rounds or asked == self.knobs.max_team
        is_last = is_last or (self.is_open_text and self.knobs.min_candidates == 1)
        return is_last and not self._options and not self.candidates and len(self.selections[-1].members) == 1

    def comparing_takes_long(self, results: Sequence[Candidate | Failure]) -> bool:
        """Tell whether comparing these answers may hold up an event loop."""
        texts = [result.text for result in results if isinstance(result, Candidate)]
        return not isinstance(self._answer_kind, str) or loads_first(texts) or takes_long(texts)

    def compare(self, results: Sequence[Candidate | Failure]) -> None:
        """Compare all answers so far with these ahead of `record`, which then finds it done."""
        arrived = [one for one in results if isinstance(one, Candidate) and not self._is_set_aside(one)]
        candidates = [*self.candidates, *arrived]
        self._compared([one.text if self.request.label_of(one.message) is None else None for one in candidates])

    def record(self, results: Sequence[Candidate | Failure], *, is_final: bool = False) -> None:
        """Take in what came of a round, and label all answers so far, since groups can change with every answer.

        Args:
            results: What came of each member.
            is_final: True if the text has been passed on, so that it is the answer whatever flaw it has.
        """
        arrived = [result for result in results if isinstance(result, Candidate)]
        aside = [] if is_final else [candidate for candidate in arrived if self._is_set_aside(candidate)]
        self._flawed = [] if is_final else self._flawed + aside
        self.failures += [result for result in results if isinstance(result, Failure)] + [failure_of(c) for c in aside]
        self.candidates = self._label(self.candidates + [candidate for candidate in arrived if candidate not in aside])

    def _is_set_aside(self, candidate: Candidate) -> bool:
        """Tell whether an answer counts for none yet; one that breaks off where the caller wanted it to is the answer."""
        is_wanted = candidate.flaw == "truncated" and any(self.request.arguments.get(name) for name in TOKEN_LIMITS)
        return candidate.flaw is not None and not is_wanted

    def choosing_takes_long(self) -> bool:
        """Tell whether comparing answers with a flaw, where there are no others, may hold up an event loop."""
        return bool(self._flawed) and self.comparing_takes_long([*self.candidates, *self._flawed])

    def take_the_best(self) -> None:
        """Leave answers with a flaw out where there are others; where there are none, take the best of them.

        Where an object or a call must come, a refusal is taken for one only if LangChain knows it for one.
        """
        is_bound = self.request.wants_object or self.request.is_forced
        withheld = [one for one in self._flawed if is_bound and one.flaw == "refusal" and not is_refusal(one.message)]
        given = [*self.candidates, *(one for one in self._flawed if one not in withheld)]
        best = min(map(_rank_of, given), default=0)
        kept = [candidate for candidate in given if _rank_of(candidate) == best]
        if kept != self.candidates:
            names = {candidate.member for candidate in given}
            others = [failure for failure in self.failures if failure.member not in names]
            self.failures = [*others, *(failure_of(one) for one in given if one not in kept)]
            self.candidates, self._flawed = self._label(kept), []

    @property
    def is_refused(self) -> bool:
        """True if all that was said in the end are refusals, to which nothing that was asked for applies."""
        return bool(self.candidates) and all(candidate.flaw == "refusal" for candidate in self.candidates)

    def _label(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Give candidates that say the same the same label."""
        # A refusal says nothing that another could say too, and holds no object.
        spoken = [candidate.flaw != "refusal" for candidate in candidates]
        acts = [
            self.request.label_of(c.message) if is_said else None for c, is_said in zip(candidates, spoken, strict=True)
        ]
        texts = [
            c.text if act is None and said else None for c, act, said in zip(candidates, acts, spoken, strict=True)
        ]
        comparison = self._compared(texts)
        comparison = comparison.merged([pair for pair in comparison.open_pairs if self._are_same(texts, *pair)])
        acting_kind = "json" if self.request.wants_object else "tool_calls"
        return [
            replace(c, answer=act, answer_kind=acting_kind)
            if act is not None
            else self._labelled(replace(c, answer_kind=kind), label or None, acts)
            for c, act, label, kind in zip(candidates, acts, comparison.labels, comparison.kinds, strict=True)
        ]

    def _compared(self, texts: Sequence[str | None]) -> Comparison:
        """Compare texts by the rules; remembered, since each round, and its end, compares the same."""
        if self._comparison is None or self._texts != tuple(texts):
            self._texts = tuple(texts)
            self._comparison = compare_answers(texts, self._answer_kind, query=self._query.text)
        return self._comparison

    def open_pairs(self) -> list[TextPair]:
        """Return pairs of texts that rules leave open and the judge has said nothing of: one for each two answers."""
        texts, pairs = self._texts, self._compared(self._texts).open_pairs
        return [pair_of(texts[i] or "", texts[j] or "") for i, j in pairs if self._are_same(texts, i, j) is None]

    def settle(self) -> None:
        """Label the candidates anew by what the judge has said."""
        rules = self._compared(self._texts)
        self.candidates = self._label(self.candidates)
        judged = [(self.candidates[i], self.candidates[j]) for i, j in rules.open_pairs]
        self.judged_same = [(a.member, b.member) for a, b in judged if a.answer == b.answer]

    @property
    def notes(self) -> list[str]:
        """Why answers could not be compared, a line each."""
        rules = self._compared(self._texts).notes if self._texts else ()
        return [*rules, *(self.hearing.notes if self.hearing is not None else ())]

    def _are_same(self, texts: Sequence[str | None], i: int, j: int) -> bool | None:
        """Tell whether the judge called two answers the same, by any two texts that give them; None where it was not asked."""
        if self.hearing is None:
            return None
        labels = self._compared(texts).labels
        ours, theirs = (
            [t or "" for t, label in zip(texts, labels, strict=True) if label == labels[at]] for at in (i, j)
        )
        said = [self.hearing.verdict(pair_of(a, b)) for a in ours for b in theirs]
        known = [same for same in said if same is not None]
        return all(known) if known else None

    def _labelled(self, candidate: Candidate, label: str | None, acts: Sequence[str | None]) -> Candidate:
        """Label a candidate whose text is its answer."""
        if label is not None and label in acts:  # a text that reads like tool calls does not make them
            label = f"text: {label}"
        option_probs = option_probs_of(candidate.message, label, options=self._options)
        return replace(candidate, answer=label, option_probs=option_probs)

    @property
    def results_of_round(self) -> list[Candidate | Failure]:
        """What came of the round in progress."""
        results: list[Candidate | Failure] = [*self.candidates, *self.failures]
        return [result for result in results if result.round == self.round_number]

    def fuse(self) -> Answer:
        """Resolve the candidates' conflict.

        Raises:
            EnsembleError: Nobody answered, or too few before the answer was cut short; it is also LangChain's `ModelError`.
        """
        self.take_the_best()
        cut_short = self.limits.is_late or any(failure.kind in {"deadline", "budget"} for failure in self.failures)
        if not self.candidates or (cut_short and len(self.candidates) < self.knobs.min_candidates):
            raise self._too_few_answered()
        answer = self.policy.fuse(self._query, self.candidates, self.failures, max_team=self.knobs.max_team)
        # A policy of the user's own may leave out what it gives no weight.
        said: dict[str, tuple[str, ...]] = {}
        for candidate in self.candidates:
            said[candidate.answer or ""] = (*said.get(candidate.answer or "", ()), candidate.member)
        supporters = said | {label: names for label, names in answer.supporters.items() if names or label not in said}
        weights = {label: answer.weights.get(label, 0.0) for label in [*answer.weights, *supporters]}
        if "" in weights:  # whoever counted it: what nobody can read agrees with nothing
            num_read = sum(candidate.answer is not None for candidate in self.candidates)
            share = num_read / len(self.candidates)
            weights = {label: 0.0 if label == "" else weight * share for label, weight in weights.items()}
        return replace(answer, weights=weights, supporters=supporters)

    def candidate_of(self, member: str) -> Candidate:
        """Return a member's candidate."""
        return next(candidate for candidate in self.candidates if candidate.member == member)

    def _too_few_answered(self) -> EnsembleModelError:
        reasons = {f.member: _reason_of(f) for f in self.failures}
        unfit_ones = {n: r for n, r in self.eligible.excluded.items() if self.eligible.only in {None, n}}
        reasons |= {name: f"not asked: it {reason}" for name, reason in unfit_ones.items()}
        reasons |= dict.fromkeys(self.resting, f"not asked: {RESTING}")
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
        num_answered = len(self.candidates)
        if num_answered:
            rule = (
                f"At least {self.knobs.min_candidates} members must answer (`min_candidates`), and {num_answered} did."
            )
        else:
            rule = f"At least one member must answer, and none of {len(reasons)} did."
        error = kind(
            f"{rule} {causes}. {self._way_out(reasons, is_late=is_late)}",
            failures=reasons,
            is_retryable=bool(self.resting) or any(failure.is_retryable for failure in self.failures),
        )
        errors = (_last_attempt(failure).error or failure.error for failure in self.failures)
        error.__cause__ = next((each for each in errors if each is not None), None)
        return error

    def _way_out(self, reasons: Mapping[str, str], *, is_late: bool) -> str:
        """Say what a caller can do about a missing answer."""
        if is_late:
            return f"Raise `deadline_s` ({self.limits.config.deadline_s:g} s), or ask quicker members."
        if any(failure.kind == "budget" for failure in self.failures):
            return "Raise the budget that is named; what counts towards `budget` begins anew with `reset_spending()`."
        if self.resting:
            return "Ask again later, or let them be asked at once by `reset_breakers()`."
        answered = {candidate.member for candidate in self.candidates}
        left = [name for name in self.eligible.members if name not in reasons and name not in answered]
        if left:
            return f"Not asked: {', '.join(left)}; raise `max_team` to let them stand in."
        return "Every member that can be asked was; add one that does not share their cause."


def _rank_of(candidate: Candidate) -> int:
    """Rank an answer by its flaw, from 0 for a whole one."""
    return 0 if candidate.flaw is None else 1 + _FLAWS.index(candidate.flaw)


def _reason_of(failure: Failure) -> str:
    """Say why a member gave no answer, and of one that was cut off also what its last attempt had come to."""
    reason, last = f"{failure.kind}: {failure.reason}", _last_attempt(failure)
    return reason if last is failure else f"{reason.rstrip('.')}, after {last.kind}: {last.reason}"


def _last_attempt(failure: Failure) -> Failure:
    """Return what tells most of a failure: that the time, or the money, was over tells less than the attempt before."""
    is_cut_off = failure.kind in {"budget", "deadline", "timeout", "breaker_open"}
    return failure.retries[-1] if is_cut_off and failure.retries else failure


def query_of(messages: Sequence[BaseMessage], *, task: str | None) -> Query:
    """Make the query of a conversation: the text of its last human message, or of its last where none is human.

    Raises:
        InputError: There is no message, or none that says anything.
    """
    if not any(_says_something(message) for message in messages):
        raise InputError(
            f"At least one message must have content, got {len(messages)} message(s) without. "
            'Ask something: model.invoke("...").'
        )
    human = [message for message in messages if isinstance(message, HumanMessage)]
    return Query(text=str((human or messages)[-1].text), task=task)


def _says_something(message: BaseMessage) -> bool:
    has_calls = isinstance(message, AIMessage) and bool(message.tool_calls)
    return has_calls or bool(message.content.strip() if isinstance(message.content, str) else message.content)
