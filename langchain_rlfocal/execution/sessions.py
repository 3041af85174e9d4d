"""Sessions: what members were sent of a conversation, and so what their providers still hold of it in their caches.

A provider that caches prompts reads the beginning of a prompt that it has read lately at a lower price. Which beginnings those
are is known from what was sent: of each prompt of a session its length, a hash and the time are kept, by member, and never a
word of it. What follows another beginning (an edited history, other tools, another system prompt) has another hash, and what
was sent too long ago counts for nothing. What a provider reports to have read from its cache corrects what is expected of it.
"""

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from langchain_rlfocal.execution.budgets import message_tokens
from langchain_rlfocal.execution.limits import Shared
from langchain_rlfocal.pool import PoolMember

MAX_SESSIONS = 10_000
"""Sessions that are remembered; those least used lately are forgotten."""

MAX_PREFIXES = 8
"""Prompts of each member that are remembered of a session: conversations of subagents, and branches."""

MAX_COUNTED = 100_000
"""Messages whose tokens are remembered."""

MAX_CALLS = 50_000
"""Tool calls whose author is remembered."""

ASSUMED_RESPONSE_TOKENS = 256
"""Tokens of a member's response as long as none is known."""

PRIOR_HITS = 2.0
"""As how many expected hits that came true each member begins."""

PRIOR_STEPS = 2.0
"""As how many human messages with one answer each it begins, before it is known how many answers agents need."""

MEMORY = 50
"""How many calls of a member, and how many answers, are remembered in saying what is usual."""

SESSION_TTL_S = 3600.0
"""Seconds after which a session that nobody goes on with is forgotten in a shared store."""


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation, by a hash of what its caller calls it.

    Attributes:
        key: The hash.
        place: Nodes of the graph in which the conversation goes on, such as `"research/model"`; members hold what they were sent
            in any of them, but each has a conversation of its own.
    """

    key: str
    place: str = ""

    @property
    def store_key(self) -> str:
        """What a store knows it by."""
        return f"session:{self.key}"

    @classmethod
    def of(cls, name: str, place: str = "") -> "Session":
        """Hash the caller's name of a session."""
        return cls(_digest(name.encode("utf-8", "surrogatepass")).hex(), place)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a member is sent, without its words.

    Attributes:
        hashes: Hash of tools and the first n messages, for n = 1, 2 and so on.
        tokens: What these take, estimated.
    """

    hashes: tuple[bytes, ...]
    tokens: tuple[int, ...]

    @classmethod
    def of(
        cls,
        messages: Iterable[BaseMessage],
        *,
        schemas: str = "",
        known: "TokenCounts | None" = None,
        digests: dict[int, bytes] | None = None,
    ) -> "Prompt":
        """Hash a prompt.

        Args:
            messages: The conversation as the member is sent it.
            schemas: Tools and formats, which providers read before it.
            known: Tokens of messages that were counted before.
            digests: Hashes of messages by their ids, which are filled in: members' prompts share most of their messages, and an
                image takes long. Only as long as the messages are there.
        """
        running, total = _digest(schemas.encode("utf-8", "surrogatepass")), -(-len(schemas) // 4)
        hashes, tokens = [], []
        made = {} if digests is None else digests
        for message in messages:
            if (digest := made.get(id(message))) is None:
                digest = made[id(message)] = _digest(_facts(message).encode("utf-8", "surrogatepass"))
            running = _digest(running + digest)
            total += message_tokens(message) if known is None else known.of(digest, message)
            hashes.append(running)
            tokens.append(total)
        return cls(tuple(hashes), tuple(tokens))

    @property
    def num_tokens(self) -> int:
        """Tokens of the whole."""
        return self.tokens[-1] if self.tokens else 0


class TokenCounts:
    """Tokens of messages by their hashes: counting takes longer than hashing, and conversations grow at their ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counted: dict[bytes, int] = {}

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._counted)

    def of(self, digest: bytes, message: BaseMessage) -> int:
        """Count a message's tokens, once."""
        tokens = self._counted.get(digest)
        if tokens is None:
            tokens = message_tokens(message)
            with self._lock:
                self._counted[digest] = tokens
                if len(self._counted) > MAX_COUNTED:
                    del self._counted[next(iter(self._counted))]
        return tokens


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16, person=b"rlfocal-session").digest()


def _facts(message: BaseMessage) -> str:
    """Lay out what a provider is sent of a message; a message that says the same has the same."""
    calls = [(c["name"], c["args"], c.get("id")) for c in message.tool_calls] if isinstance(message, AIMessage) else []
    result = message.tool_call_id if isinstance(message, ToolMessage) else None
    kind = message.type.removesuffix("MessageChunk").lower()  # "ai", whether it came whole or in pieces
    return json.dumps([kind, message.name, _as_read(message.content), calls, result], default=str, sort_keys=True)


def _as_read(content: Any) -> Any:
    """Drop what says where a cache ends, which wanders from step to step, and a text's form: a provider reads the same."""
    if not isinstance(content, list):
        return content
    blocks = [_without_mark(block) for block in content if not (isinstance(block, Mapping) and "cachePoint" in block)]
    return blocks[0] if len(blocks) == 1 and isinstance(blocks[0], str) else blocks


def _without_mark(block: Any) -> Any:
    if not isinstance(block, Mapping):
        return block
    rest = {key: value for key, value in block.items() if key != "cache_control"}
    if rest.keys() == {"type", "text"} and rest["type"] == "text":
        return rest["text"]
    return rest | {"content": _as_read(rest["content"])} if "content" in rest else rest


@dataclass(frozen=True, slots=True)
class Prefix:
    """A prompt that a member was sent.

    Attributes:
        length: How many messages it had.
        digest: Its hash.
        tokens: What it took, as its provider reports, else estimated.
        used_at_s: When it was sent last.
    """

    length: int
    digest: bytes
    tokens: int
    used_at_s: float

    def begins(self, prompt: Prompt) -> bool:
        """Tell whether a prompt begins with this."""
        return 0 < self.length <= len(prompt.hashes) and prompt.hashes[self.length - 1] == self.digest


@dataclass(frozen=True, slots=True)
class Expected:
    """What asking a member now is expected to take.

    Attributes:
        prompt_tokens: Tokens of its prompt.
        held_tokens: How many of them its provider is expected to read from its cache.
        usd: Dollars, with what writing to the cache takes; None without prices.
        full_usd: Dollars if nothing were cached, nor written; None as above.
        later_usd: Dollars of each further step with the same member, which then holds what it has read; None as above.
    """

    prompt_tokens: int
    held_tokens: int
    usd: float | None
    full_usd: float | None
    later_usd: float | None

    def factor(self, steps: float) -> float:
        """Return what a step costs on average, over what it would cost if nothing were cached; 1 where that is nothing.

        Args:
            steps: How many steps, this one among them, are expected to go on with the member: at least 1.
        """
        if self.usd is None or self.later_usd is None or not self.full_usd:
            return 1.0
        return (self.usd + (steps - 1) * self.later_usd) / (steps * self.full_usd)


@dataclass(slots=True)
class _Held:
    """What is known of one session: the prompts of each member, the latest last; who answered last at each place; who called last."""

    prefixes: dict[str, list[Prefix]] = field(default_factory=dict)
    authors: dict[str, str] = field(default_factory=dict)
    calls: dict[str, str] = field(default_factory=dict)


class Sessions(Shared):
    """What members hold of the sessions of a model and its copies; a pickle holds nothing.

    Attributes:
        token_counts: Tokens of messages that were counted before.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._sessions: OrderedDict[str, _Held] = OrderedDict()
        self._calls: OrderedDict[str, str] = OrderedDict()
        self._hits: dict[str, tuple[float, float]] = {}
        self._written: dict[str, tuple[float, float]] = {}
        self.token_counts = TokenCounts()
        self._steps = (PRIOR_STEPS, PRIOR_STEPS)

    def __len__(self) -> int:
        """How many sessions are remembered."""
        return len(self._sessions)

    def __contains__(self, session: Session) -> bool:
        """Tell whether anything is known of a session."""
        return session.key in self._sessions

    # ---- what to expect

    def expected(self, session: Session, member: PoolMember, prompt: Prompt, now_s: float) -> Expected:
        """Say what asking a member now is expected to take."""
        found = self._longest(session, member.name, prompt)
        prompt_tokens = prompt.num_tokens
        held_tokens = 0
        if found is not None:
            prompt_tokens += found.tokens - prompt.tokens[found.length - 1]
            alive = self._longest(session, member.name, prompt, since_s=now_s - member.cache_ttl_s)
            if alive is not None and alive.tokens >= member.cache_min_tokens and member.cache_ttl_s > 0:
                held_tokens = int(min(alive.tokens, prompt_tokens) * self.hit_share(member.name))
        written, share = self.usual_response_tokens(member.name), self.hit_share(member.name)
        is_cached = member.cache_ttl_s > 0 and prompt_tokens >= member.cache_min_tokens
        later, new = (
            int(tokens * share) if is_cached else 0 for tokens in (prompt_tokens, prompt_tokens - held_tokens)
        )
        usd, full_usd, later_usd = (
            member.cost_usd(
                prompt_tokens=prompt_tokens, completion_tokens=written, cached_tokens=cached, cache_write_tokens=stored
            )
            for cached, stored in ((held_tokens, new), (0, 0), (later, 0))
        )
        return Expected(prompt_tokens, held_tokens, usd, full_usd, later_usd)

    def num_sent(self, session: Session, member: str, prompt: Prompt) -> int:
        """Return how many of a prompt's messages, from its beginning on, a member was sent before, however long ago."""
        found = self._longest(session, member, prompt)
        return 0 if found is None else found.length

    def _longest(
        self, session: Session, member: str, prompt: Prompt, *, since_s: float = float("-inf")
    ) -> Prefix | None:
        """Find the longest beginning of a prompt that a member was sent since."""
        with self._lock:
            known = self._sessions.get(session.key)
            prefixes = () if known is None else tuple(known.prefixes.get(member, ()))
        fitting = [one for one in prefixes if one.used_at_s >= since_s and one.begins(prompt)]
        return max(fitting, key=lambda one: one.length, default=None)

    def hit_share(self, member: str) -> float:
        """Return the share of what was expected in a member's cache that it reported, in [0, 1]."""
        came_true, num = self._hits.get(member, (0.0, 0.0))
        return (PRIOR_HITS + came_true) / (PRIOR_HITS + num)

    @property
    def usual_steps(self) -> float:
        """How many answers, on average, follow one human message: more than one where agents call tools."""
        answers, questions = self._steps
        return max(answers / questions, 1.0)

    def usual_response_tokens(self, member: str) -> int:
        """Return how many tokens a member's responses take on average."""
        total, num = self._written.get(member, (0.0, 0.0))
        return round(total / num) if num else ASSUMED_RESPONSE_TOKENS

    # ---- what was sent

    def note(
        self,
        session: Session,
        member: PoolMember,
        prompt: Prompt,
        *,
        at_s: float,
        expected_tokens: int = 0,
        prompt_tokens: int | None = None,
        cached_tokens: int | None = None,
        response_tokens: int | None = None,
    ) -> None:
        """Note that a member was sent a prompt and read it.

        Args:
            session: The session.
            member: The member.
            prompt: What it was sent.
            at_s: When.
            expected_tokens: How many tokens were expected in its cache.
            prompt_tokens: How many the prompt had, as its provider reports; None where it does not.
            cached_tokens: How many of them came from its cache; None where its provider reports no tokens at all.
            response_tokens: How many the response had; None as above.
        """
        name = member.name
        with self._lock:
            if expected_tokens and cached_tokens is not None:
                came_true = min(cached_tokens / expected_tokens * self.hit_share(name), 1.0)
                self._hits[name] = _added(self._hits.get(name), came_true)
            if response_tokens is not None:
                self._written[name] = _added(self._written.get(name), response_tokens)
            if prompt.hashes:
                tokens = prompt.num_tokens if prompt_tokens is None else prompt_tokens
                prefixes = self._known(session).prefixes.setdefault(name, [])
                kept = [
                    replace(one, used_at_s=max(at_s, one.used_at_s)) if one.begins(prompt) else one
                    for one in prefixes
                    if one.digest != prompt.hashes[-1]
                ]
                kept.append(Prefix(len(prompt.hashes), prompt.hashes[-1], tokens, at_s))
                prefixes[:] = sorted(kept, key=lambda one: (one.used_at_s, one.length))[-MAX_PREFIXES:]

    def note_answer(self, session: Session, member: str, *, is_first: bool) -> None:
        """Note who answered, and whether it was the first answer to a human message."""
        with self._lock:
            kept = 1 - 1 / MEMORY
            self._steps = (self._steps[0] * kept + 1, self._steps[1] * kept + is_first)
            self._known(session).authors[session.place] = member

    def author(self, session: Session) -> str | None:
        """Return who answered last; None where nobody is known."""
        with self._lock:
            known = self._sessions.get(session.key)
            return None if known is None else known.authors.get(session.place)

    def note_calls(self, ids: Sequence[str], member: str, session: Session | None = None) -> None:
        """Note who made tool calls, by their ids; of a session its latest are told to other processes."""
        named = [call_id for call_id in ids if call_id]
        with self._lock:
            if session is not None and named:
                self._known(session).calls = dict.fromkeys(named, member)
            for call_id in named:
                self._calls[call_id] = member
            while len(self._calls) > MAX_CALLS:
                self._calls.popitem(last=False)

    def caller(self, ids: Sequence[str], session: Session | None = None) -> str | None:
        """Return who made tool calls, in this session before others, since some providers count theirs; None where nobody is known."""
        with self._lock:
            known = None if session is None else self._sessions.get(session.key)
            own = {} if known is None else known.calls
            return next((name for i in ids if (name := own.get(i) or self._calls.get(i)) is not None), None)

    def _known(self, session: Session) -> _Held:
        known = self._sessions.setdefault(session.key, _Held())
        self._sessions.move_to_end(session.key)
        while len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return known

    # ---- between processes

    def dump(self, session: Session, *, now_s: float) -> bytes:
        """Lay out what is known of a session for another process, whose clock may begin elsewhere."""
        with self._lock:
            known = self._sessions.get(session.key, _Held())
            base_s = time.time() - now_s
            prefixes = {
                member: [[one.length, one.digest.hex(), one.tokens, one.used_at_s + base_s] for one in held]
                for member, held in known.prefixes.items()
            }
            return json.dumps({"prefixes": prefixes, "authors": known.authors, "calls": known.calls}).encode()

    def load(self, session: Session, data: bytes, *, now_s: float) -> None:
        """Add what another process knows of a session; who answered last is who answered last there.

        What cannot be read, since another release wrote it, is as if nothing were known.
        """
        base_s = time.time() - now_s
        try:
            said: Mapping[str, Any] = json.loads(data)
            authors, calls = (
                {str(name): str(member) for name, member in said[of].items()} for of in ("authors", "calls")
            )
            prefixes = {
                member: [
                    Prefix(int(length), bytes.fromhex(digest), int(tokens), float(at_s) - base_s)
                    for length, digest, tokens, at_s in rows
                ]
                for member, rows in said["prefixes"].items()
            }
        except (ValueError, TypeError, LookupError, AttributeError):
            return
        with self._lock:
            known = self._known(session)
            known.authors.update(authors)
            known.calls = calls or known.calls
            for call_id, member in calls.items():
                self.note_calls([call_id], member)
            for member, theirs in prefixes.items():
                ours = {one.digest: one for one in known.prefixes.get(member, ())}
                for one in theirs:
                    if one.digest not in ours or ours[one.digest].used_at_s < one.used_at_s:
                        ours[one.digest] = one
                latest = sorted(ours.values(), key=lambda one: (one.used_at_s, one.length))
                known.prefixes[member] = latest[-MAX_PREFIXES:]


def _added(sums: tuple[float, float] | None, value: float) -> tuple[float, float]:
    """Add to a sum and its count, which fade over `MEMORY` values."""
    total, num = sums or (0.0, 0.0)
    kept = 1 - 1 / MEMORY
    return total * kept + value, num * kept + 1
