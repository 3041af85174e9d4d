"""Sessions: one answer as a step of a conversation, whose members' providers hold parts of it in their caches.

A `Turn` says what asking each member now is expected to cost, who goes on alone, and what staying saved. It decides nothing
else: the policy weighs the price of a member that holds the conversation against the competence of another.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from inspect import Parameter, signature
from typing import Any, Literal, Self

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables.config import ensure_config

from langchain_rlfocal.chat_models.messages import KEY, with_results_apart
from langchain_rlfocal.chat_models.requests import Request
from langchain_rlfocal.execution import Expected, Prompt, Result, Session, Sessions, cached_tokens_of, message_of
from langchain_rlfocal.pool import ModelPool
from langchain_rlfocal.records import Candidate

Sticky = Literal["off", "tools", "session"]
"""Who goes on with a conversation: whom the Decider chooses; in a tool loop the member whose calls were run; or always the member
that answered last."""


def session_of(named: Any, metadata: Mapping[str, Any] | None) -> Session | None:
    """Find the session of a call: as the caller names it, else LangGraph's thread; None where there is neither.

    In a thread several agents may talk, each in nodes of its own: the nodes around are the session's place. A node's
    namespace has its task's id behind a colon, which changes from step to step.

    Args:
        named: The call's `session`.
        metadata: Metadata of the ensemble's run.
    """
    if named is not None:
        return Session.of(str(named))
    configurable = ensure_config(None).get("configurable") or {}
    thread = (metadata or {}).get("thread_id", configurable.get("thread_id"))  # the call's own, or what it inherits
    if thread is None:
        return None
    nodes = str(configurable.get("checkpoint_ns") or "").split("|")
    return Session.of(str(thread), "/".join(node.partition(":")[0] for node in nodes))


@cache
def takes_price_factors(select: Callable[..., Any]) -> bool:
    """Tell whether a policy's `select` knows `price_factors`; one that was written before does not."""
    parameters = signature(select).parameters
    return "price_factors" in parameters or any(one.kind is Parameter.VAR_KEYWORD for one in parameters.values())


def author_of(
    messages: Sequence[BaseMessage], sessions: Sessions, *, of_calls: bool, session: Session | None = None
) -> str | None:
    """Find who answered last in a conversation; None where that is not known.

    What our own message says of itself counts, and of tool calls also who is known to have made calls of these ids: a client
    may keep no more of a message than its protocol has.

    Args:
        messages: The conversation.
        sessions: Know who made which calls.
        of_calls: True to ask whose tool calls have been run since the last human message.
        session: The session, whose calls go before those of others.
    """
    flat = [part for message in messages for part in with_results_apart(message)]
    if of_calls:
        start = max((i for i, message in enumerate(flat) if isinstance(message, HumanMessage)), default=-1)
        flat = flat[start + 1 :]
        results = {message.tool_call_id for message in flat if isinstance(message, ToolMessage)}
        said = [m for m in flat if isinstance(m, AIMessage) and any(call["id"] in results for call in m.tool_calls)]
    else:
        said = [message for message in flat if isinstance(message, AIMessage)]
    names = (_author_of(message, sessions, session) for message in reversed(said))
    return next(names, None) if of_calls else next((name for name in names if name is not None), None)


def _author_of(message: AIMessage, sessions: Sessions, session: Session | None) -> str | None:
    facts = message.response_metadata.get(KEY)
    fusion = facts.get("fusion") if isinstance(facts, Mapping) else None
    name = fusion.get("member") if isinstance(fusion, Mapping) else None
    name = name or sessions.caller([call["id"] or "" for call in message.tool_calls], session)
    return name if isinstance(name, str) else None


@dataclass(slots=True)
class Turn:
    """One answer's part of a session.

    Attributes:
        session: The session; None where the conversation alone says who goes on.
        sticky: Who goes on with it.
        member: Who goes on; None where the Decider chooses.
        expected: By member, what asking it now is expected to take; empty without a session.
        price_factors: By member, what asking it costs over what it costs with nothing cached; None where nothing is held, or a
            price not known. It stays as the policy was told it, whatever comes of the answer.
        is_in_force: True if `member` was asked alone.
    """

    session: Session | None
    sticky: Sticky
    member: str | None
    expected: Mapping[str, Expected]
    _prompts: Mapping[str, Prompt]
    _pool: ModelPool
    _sessions: Sessions
    price_factors: Mapping[str, float] | None = None
    _is_first: bool = True
    is_in_force: bool = False
    _noted: set[str] = field(default_factory=set)

    @classmethod
    def of(
        cls,
        messages: list[BaseMessage],
        request: Request,
        *,
        session: Session | None,
        sticky: Sticky,
        pool: ModelPool,
        sessions: Sessions,
        now_s: float,
    ) -> Self | None:
        """Look up what is known of a conversation; None where there is no session and nobody can go on."""
        find = partial(author_of, messages, sessions, session=session)
        member = None if sticky == "off" else find(of_calls=True)
        is_open = member is None and sticky == "session"
        if is_open:
            member = find(of_calls=False)
        if member not in pool:
            member = None
        if session is None:
            return None if sticky == "off" else cls(None, sticky, member, {}, {}, pool, sessions)
        prompts: dict[str, Prompt] = {}
        made: dict[tuple[int, ...], Prompt] = {}
        digests: dict[int, bytes] = {}
        schemas = request.schemas_sent
        for one in pool:
            sent = request.conversation_for(one, messages)
            key = tuple(map(id, sent))  # the same messages for all that have written none of them
            if key not in made:
                made[key] = Prompt.of(sent, schemas=schemas, known=sessions.token_counts, digests=digests)
            prompts[one.name] = made[key]
        expected = {one.name: sessions.expected(session, one, prompts[one.name], now_s) for one in pool}
        if is_open and session in sessions:
            # A thread may have branches, and agents that read each other's words: whose words are the last here must have been
            # sent more of this than who answered last in this place.
            known = sessions.author(session) or ""
            sent_before = {
                name: sessions.num_sent(session, name, prompts[name]) for name in (known, member) if name in prompts
            }
            if member is None or sent_before[member] <= sent_before.get(known, 0):
                member = known if known in pool else None
        is_first = not any(isinstance(part, ToolMessage) for part in [*with_results_apart(messages[-1])][-1:])
        factors = _price_factors(expected, sessions.usual_steps)
        return cls(session, sticky, member, expected, prompts, pool, sessions, factors, is_first)

    # ---- what came of it

    def note(self, results: Iterable[Result], now_s: float) -> None:
        """Note who has read the conversation now, each once; who did not respond may not have."""
        if self.session is None:
            return
        for result in results:
            message = message_of(result)
            if message is None or result.member not in self._prompts or result.member in self._noted:
                continue
            self._noted.add(result.member)
            whole = result if isinstance(result, Candidate) else None
            cached = cached_tokens_of(message)
            if cached is None and whole is not None and whole.prompt_tokens is not None:
                cached = 0  # as it is billed: who reports tokens, and none from a cache, has read none from there
            self._sessions.note(
                self.session,
                self._pool[result.member],
                self._prompts[result.member],
                at_s=now_s - result.latency_s,
                expected_tokens=self.expected[result.member].held_tokens,
                prompt_tokens=None if whole is None else whole.prompt_tokens,
                cached_tokens=cached,
                response_tokens=None if whole is None else whole.completion_tokens,
            )

    def note_answer(self, member: str | None, call_ids: Sequence[str]) -> None:
        """Note who answered, with which tool calls."""
        if member is None or member not in self._pool:
            return
        if self.session is not None:
            self._sessions.note_answer(self.session, member, is_first=self._is_first)
        self._sessions.note_calls(call_ids, member, self.session)

    def describe(self, results: Iterable[Result]) -> dict[str, Any] | None:
        """Describe in JSON values what each member was expected to cost, and what was saved; None where there is nothing to say."""
        if self.session is None and not self.is_in_force:
            return None
        reported = {one.member: one for one in results if message_of(one) is not None}
        members, saved_usd = {}, 0.0
        for name, one in self.expected.items():
            result = reported.get(name)
            cached = None if result is None else cached_tokens_of(message_of(result))
            members[name] = {
                "prompt_tokens": one.prompt_tokens,
                "held_tokens": one.held_tokens,
                "cached_tokens": cached,
                "expected_usd": one.usd,
                "uncached_usd": one.full_usd,
            }
            member = self._pool[name]
            if cached and member.input_usd_per_mtok is not None and member.cached_input_usd_per_mtok is not None:
                saved_usd += cached * (member.input_usd_per_mtok - member.cached_input_usd_per_mtok) / 1e6
        return {
            "id": None if self.session is None else self.session.key[:12],
            "sticky": self.sticky,
            "member": self.member if self.is_in_force else None,
            "members": members,
            "saved_usd": saved_usd,
        }


def _price_factors(expected: Mapping[str, Expected], steps: float) -> dict[str, float] | None:
    """Say what asking each member costs over what it costs with nothing cached; None where nothing is held, or a price not known.

    A member that is new to the conversation reads all of it once, and then holds it for the steps that follow: its price is the
    average over the steps that one question takes.
    """
    every = expected.values()
    if not any(one.held_tokens for one in every) or any(one.usd is None for one in every):
        return None
    return {name: one.factor(steps) for name, one in expected.items()}
