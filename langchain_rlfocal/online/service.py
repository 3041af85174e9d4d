"""Learning while serving: what a model, and its copies, have learned from their log.

A `LearningService` folds the feedback of all processes into a `Guard`, in the log's order, so that every process comes to the same
policy. Folding never happens between a query and its answer on an event loop, and nothing that goes wrong in it fails an
answer: then the answers go on being served as before.
"""

import asyncio
import dataclasses
import hashlib
import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from langchain_rlfocal.errors import InputError, OutcomeLogError
from langchain_rlfocal.log import Feedback, OutcomeLog, ServedAnswer, Undo
from langchain_rlfocal.online.guard import Change, Guard, Mode
from langchain_rlfocal.online.learner import OnlineLearner
from langchain_rlfocal.policies.base import EnsemblePolicy, Policy

CHECK_S = 0.1
"""How often, at most, the log is looked at for feedback of other processes."""

FOLD_S = 0.25
"""How long folding may hold up an answer; what is left is folded before later ones."""

SNAPSHOT_EVERY = 100
"""After how many events a snapshot is saved, from which a new process starts."""

LEFT_OUT = "its answers score less than is expected of it"

_BATCH = 100

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Serving:
    """What serves now.

    Attributes:
        policy: The policy that decides.
        left_out: Why members are not asked.
        probe_share: Share of the queries on which each of those is asked nevertheless.
        fallen: Members whose scores fell, also where nothing follows from it.
    """

    policy: Policy
    left_out: Mapping[str, str] = field(default_factory=dict)
    probe_share: float = 0.0
    fallen: tuple[str, ...] = ()


class LearningService:
    """Records what a policy serves, and learns from what users say of it.

    Args:
        log: Where both are recorded.
        policy: The policy that serves first.
        mode: `"off"` only records, `"shadow"` learns and serves as before, `"on"` serves what was learned.

    Raises:
        InputError: The mode is none, or the policy is not one of this package, so that it cannot be corrected.
        OutcomeLogError: The log cannot be read.

    Attributes:
        serving: What serves now; replaced as a whole.
    """

    def __init__(self, log: OutcomeLog, policy: Policy, *, mode: Mode = "off") -> None:
        if mode not in get_args(Mode):
            raise InputError(f"`learning` must be one of {', '.join(get_args(Mode))}, got {mode!r}.")
        self.log, self.record, self.serving = log, log.record, Serving(policy)
        self._policy, self._mode = policy, mode
        self._members = frozenset(policy.members)
        # Each mode folds the log itself: what happened in shadow is nothing that served.
        facts = "\0".join([mode, policy.policy_id, *policy.members])
        self._learner = hashlib.sha256(facts.encode("utf-8", "replace")).hexdigest()[:16]
        self._lock = threading.Lock()
        self._seq = self._saved_seq = 0
        self._unsaved: list[Change] = []
        self._due_at_s = math.inf
        self._trouble = ""
        self._guard: Guard | None = None
        if mode != "off":
            self._guard = self._restored()
            self._due_at_s = 0.0
            self._publish()
        _services.add(self)

    @classmethod
    def of(cls, log: OutcomeLog, policy: Policy, *, mode: Mode = "off") -> "LearningService":
        """Return what copies of a model share: the service of this log, policy and mode, or a new one; see above.

        Policies of this package are the same by their ids, which are hashes of what they know; a user's own is the same as itself
        alone. The log does not keep the service: whoever uses it does.
        """
        same = policy.policy_id if isinstance(policy, EnsemblePolicy) else id(policy)  # its service holds the policy
        key = (same, tuple(policy.members), mode)
        with _finding:
            service: LearningService | None = log.shared.get(key)
            if service is None:
                service = log.shared[key] = cls(log, policy, mode=mode)
            return service

    def takes_turn(self) -> bool:
        """Tell the caller whether to `refresh`, since there may be feedback to fold; others are told not to for `CHECK_S`."""
        now_s = time.monotonic()
        if now_s < self._due_at_s:
            return False
        self._due_at_s = now_s + CHECK_S
        return True

    async def arefresh(self) -> None:
        """Fold in a thread; see `refresh`. Where all threads are busy, it is not waited for."""
        folding = asyncio.get_running_loop().run_in_executor(None, self.refresh)
        await asyncio.wait([folding], timeout=2 * FOLD_S)

    def add_feedback(self, feedback: Feedback) -> None:
        """Record feedback, and fold it.

        Raises:
            FeedbackError: It breaks a rule; see `OutcomeLog.add_feedback`.
            OutcomeLogError: It cannot be written.
        """
        self.log.add_feedback(feedback)
        self.refresh(waits=True)

    def refresh(self, *, waits: bool = False) -> None:
        """Fold the feedback that is new, of all processes, for `FOLD_S` at most; what goes wrong is logged.

        Args:
            waits: True to wait for another thread that is folding, False to leave it to that one.
        """
        if self._guard is None or not self._lock.acquire(blocking=waits):
            return
        try:
            self._fold(within_s=FOLD_S, waits=False)
            self._trouble = ""
        except Exception as error:  # noqa: BLE001  # whatever it is, answers must go on
            if self._trouble != repr(error):  # said once, not before every answer
                self._trouble = repr(error)
                _log.exception("What is new in %s was not learned; answers are served as before.", self.log.name)
        finally:
            self._lock.release()

    def changes(self) -> list[Change]:
        """Return what was changed so far, the first first.

        Raises:
            InputError: Nothing is learned.
            OutcomeLogError: The log cannot be read.
        """
        self._check_learning()
        with self._lock:
            self._fold()
        try:
            return [Change(**facts) for facts in self.log.changes(self._learner).values()]
        except TypeError as error:
            raise OutcomeLogError(f"A change in {self.log.name} breaks a rule: {error}. Delete its row.") from None

    def undo(self, change_id: str) -> None:
        """Undo a change, in all processes.

        Raises:
            InputError: There is no such change, or nothing is learned.
            OutcomeLogError: The log cannot be read or written.
        """
        known = [change.id for change in self.changes()]
        if change_id not in known:
            raise InputError(
                f"`change_id` must be the id of a change ({', '.join(known) or 'none so far'}), got {change_id!r}. "
                "`changes()` lists them."
            )
        self.log.add_undo(Undo(learner=self._learner, change_id=change_id))
        with self._lock:
            self._fold()

    def probes(self, answer_id: str) -> tuple[str, ...]:
        """Say which of the members left out are asked beside the team, to see whether they have recovered."""
        return self._guard.probes(answer_id) if self.serving.left_out and self._guard is not None else ()

    def _check_learning(self) -> None:
        if self._guard is None:
            raise InputError(
                'Changes are made where `learning` is "shadow" or "on", got "off". Give the model one of them.'
            )

    # ---- folding; whoever holds the lock

    def _restored(self) -> Guard:
        """Make the guard of the latest snapshot, or a new one."""
        self._unsaved.clear()
        if not isinstance(self._policy, EnsemblePolicy):
            raise InputError(
                f'`learning` must be "off" where the policy is not one of this package, got {self._mode!r} and '
                f"{type(self._policy).__name__}, which feedback cannot correct. Train a policy, or give none."
            )
        snapshot = self.log.load_snapshot(self._learner)
        if snapshot is not None:
            try:
                guard = self._new_guard(self._policy).restore(snapshot[1])
            except InputError:  # of another release: all feedback is still there
                _log.info("A snapshot in %s does not fit; what it held is learned again.", self.log.name)
            else:
                self._seq = self._saved_seq = snapshot[0]
                return guard
        self._seq = self._saved_seq = 0
        return self._new_guard(self._policy)

    def _new_guard(self, policy: EnsemblePolicy) -> Guard:
        return Guard(policy, OnlineLearner(policy), mode=self._mode)

    def _fold(self, *, within_s: float = math.inf, waits: bool = True) -> None:
        """Fold what is new.

        Args:
            within_s: Seconds that it may take.
            waits: False to wait for nobody who writes to the log: what cannot be saved now is saved later.
        """
        give_up_at_s = time.monotonic() + within_s
        self._due_at_s = time.monotonic() + CHECK_S
        last_seq = self.log.last_seq
        if last_seq < self._seq:  # it is another log by now
            self._guard = self._restored()
        if last_seq != self._seq:
            try:
                self._fold_events(give_up_at_s)
            finally:
                self._publish()
        try:
            self._save(waits=waits)
        except OutcomeLogError:
            if waits:
                raise

    def _fold_events(self, give_up_at_s: float) -> None:
        while events := self.log.events_since(self._seq, _BATCH):
            for seq, event in events:
                self._seq = seq  # an event that cannot be learned from is learned from by nobody
                self._unsaved += self._take(event)
                if time.monotonic() >= give_up_at_s:
                    self._due_at_s = 0.0
                    return

    def _take(self, event: tuple[ServedAnswer, Feedback] | Undo) -> list[Change]:
        """Learn from an event, unless it is of another pool or learner."""
        assert self._guard is not None, "checked by who calls"
        if isinstance(event, Undo):
            return self._guard.undo(event.change_id) if event.learner == self._learner else []
        served, feedback = event
        return self._guard.update(served, feedback) if served.members <= self._members else []

    def _save(self, *, waits: bool) -> None:
        """Save changes, and only then the snapshot: without one, they are found again."""
        while self._unsaved:
            change = self._unsaved[0]
            self.log.add_change(self._learner, change.id, dataclasses.asdict(change), waits=waits)
            del self._unsaved[0]
        if self._guard is not None and self._seq - self._saved_seq >= SNAPSHOT_EVERY:
            self.log.save_snapshot(self._learner, self._seq, self._guard.arrays(), waits=waits)
            self._saved_seq = self._seq

    def _publish(self) -> None:
        assert self._guard is not None, "checked by who calls"
        left_out = dict.fromkeys(self._guard.left_out, LEFT_OUT)
        policy: Any = self._guard.serving
        monitor = self._guard.monitor
        self.serving = Serving(policy, left_out, monitor.probe_share, monitor.left_out)


# ---- what copies share, in each process

_finding = threading.RLock()
_services: "weakref.WeakSet[LearningService]" = weakref.WeakSet()
_forking: list[LearningService] = []


def _before_fork() -> None:
    """Let nobody fold: a child would see it half done."""
    _finding.acquire()
    _forking.extend(_services)
    for service in _forking:
        service._lock.acquire()  # noqa: SLF001


def _after_fork() -> None:
    for service in _forking:
        service._lock.release()  # noqa: SLF001
    _forking.clear()
    _finding.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
