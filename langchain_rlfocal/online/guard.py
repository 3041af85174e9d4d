"""The guard: which policy serves, and which members are left out, while a learner learns.

A trained incumbent serves until the learner is shown to be better, in scores less what calls cost: until the lower bound of the paired
difference, which holds at all times at once (`off_policy`), is above 0. The learner serves until the incumbent is shown to be better
in the same way, or until what its answers are worth falls below the mean of the incumbent's (`drift`); then it has to show more. An untrained incumbent knows nothing that would have to
be protected, and asks the same members always, so that nothing could be learned of the others: there the learner serves at once.

Every change is an entry with its figures, and can be undone. After a takeover was undone the incumbent serves for good; a member that
was taken in again by a person is watched as before, and may be left out again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

import numpy as np

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.log import Feedback, ServedAnswer
from langchain_rlfocal.online.arrays import checked_array
from langchain_rlfocal.online.drift import DriftMonitor
from langchain_rlfocal.online.learner import OnlineLearner, is_trained
from langchain_rlfocal.online.off_policy import Comparison, Difference, done_by, follow
from langchain_rlfocal.policies.base import EnsemblePolicy
from langchain_rlfocal.states import Floats

Mode = Literal["off", "shadow", "on"]
"""`off`: nothing is learned. `shadow`: the learner learns and is compared, and changes nothing. `on`: it may serve."""

ChangeKind = Literal["took_over", "went_back", "left_out", "returned"]

SCORE_TOLERANCE = 0.05
"""How far what the learner's answers are worth may fall below the incumbent's mean: queries may get harder by so much."""

_MEMORY = 500
_LEAST_ERROR = 1e-6
_SERVED = "served"
_FACTS = (
    "_learner_serves",
    "_is_announced",
    "_is_forbidden",
    "_has_fallen",
    "_num_changes",
    "_num_scores",
    "_num_returns",
    "_mean_worth",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of what is served. JSON values only.

    Attributes:
        id: Its number, kind and member: what `Guard.undo` takes.
        kind: What changed.
        reason: One line for a person.
        figures: The numbers behind it.
    """

    id: str
    kind: ChangeKind
    reason: str
    figures: Mapping[str, Any] = field(default_factory=dict)


class Guard:
    """Decides what serves.

    Args:
        incumbent: The policy that serves first.
        learner: What learns; its base may be the incumbent.
        mode: See `Mode`.
        monitor: Watches the members; None watches them with the default rates.
        error: Probability that a takeover, or a way back, is ever wrong: that of each comparison's interval.
        max_weight: See `off_policy.Comparison`.

    Raises:
        InputError: The mode is none, or incumbent and learner know different members.
    """

    def __init__(
        self,
        incumbent: EnsemblePolicy,
        learner: OnlineLearner,
        *,
        mode: Mode = "off",
        monitor: DriftMonitor | None = None,
        error: float = 0.05,
        max_weight: float = 20.0,
    ) -> None:
        if mode not in get_args(Mode):
            raise InputError(f"`mode` must be one of {', '.join(get_args(Mode))}, got {mode!r}.")
        if set(incumbent.members) != set(learner.base.members):
            raise InputError("The learner must know the incumbent's members, no others. Make it of the same pool.")
        self.incumbent, self.learner, self.mode = incumbent, learner, mode
        self.monitor = monitor or DriftMonitor(incumbent.members)
        self._scores = DriftMonitor([_SERVED], tolerance=SCORE_TOLERANCE / 2)
        self._learner_serves = mode == "on" and not is_trained(incumbent)
        self._is_announced = not self._learner_serves
        self._is_forbidden = self._has_fallen = False
        self._num_changes = self._num_scores = self._num_returns = 0
        self._mean_worth = 0.0  # of the incumbent's answers, over the last
        self._error, self._max_weight = error, max_weight
        self._comparison = self._new_comparison()

    @property
    def serves_learner(self) -> bool:
        """True if the learner's policy decides: never but in mode `on`, whatever was restored."""
        return self.mode == "on" and self._learner_serves

    @property
    def serving(self) -> EnsemblePolicy:
        """The policy that decides now."""
        return self.learner.policy if self.serves_learner else self.incumbent

    @property
    def difference(self) -> Difference:
        """How much better the policy that does not serve is than the one that does, since the last change of these."""
        return self._comparison.difference

    @property
    def left_out(self) -> tuple[str, ...]:
        """Members that are not asked now, but for `probes`; the last one that is left never is among them."""
        if self.mode != "on":
            return ()
        out = self.monitor.left_out
        if len(out) == len(self.monitor.members):
            kept = max(out, key=lambda name: float(np.nan_to_num(self.monitor.expected(name))))
            return tuple(name for name in out if name != kept)
        return out

    def probes(self, key: str) -> tuple[str, ...]:
        """Say which members left out are to be asked beside the team; see `DriftMonitor.probes`."""
        out = self.left_out
        return tuple(name for name in self.monitor.probes(key) if name in out)

    def update(self, served: ServedAnswer, feedback: Feedback) -> list[Change]:
        """Learn from one judged answer, and decide anew what serves. Takes time: never between a query and its answer.

        Returns:
            What changed.
        """
        if self.mode == "off":
            return []
        changes = self._watch_members(served, feedback)
        if not self._is_announced:
            self._is_announced = True
            changes.append(self._change("took_over", "There is no trained policy that would have to be protected."))
        self._compare(served, feedback)
        self.learner.update(served, feedback)
        if self.mode == "on":
            changes += self._decide()
        return changes

    def undo(self, change_id: str) -> list[Change]:
        """Undo a change.

        Returns:
            What changed; nothing where it does not hold any more.

        Raises:
            InputError: There was no such change.
        """
        number, _, rest = change_id.partition("-")
        kind, _, member = rest.partition(":")
        known = kind in get_args(ChangeKind) and (not member or member in self.monitor.members)
        if not known or not number.isdecimal() or int(number) > self._num_changes:
            raise InputError(f"`change_id` must be the id of an entry of this guard, got {change_id!r}.")
        reason = "Undone by a person."
        if kind == "took_over" and self.serves_learner:
            self._is_forbidden = True
            return [self._serve(learner=False, reason=reason)]
        if kind == "went_back" and not self.serves_learner:
            self._is_forbidden = False
            return [self._serve(learner=True, reason=reason)]
        if kind == "left_out" and member in self.monitor.left_out:
            self.monitor.bring_back(member)
            return [self._change("returned", reason, member)]
        if kind == "returned" and member not in self.monitor.left_out:
            self.monitor.leave_out(member)
            return [self._change("left_out", reason, member)]
        return []

    def arrays(self) -> dict[str, Floats]:
        """Return all that was learned, the learner's arrays included, by name."""
        arrays: dict[str, Floats] = {
            "guard.facts": np.array([getattr(self, name) for name in _FACTS], dtype=np.float64)
        }
        for part, holder in self._parts().items():
            arrays |= {f"{part}.{name}": array for name, array in holder.arrays().items()}
        return arrays

    def restore(self, arrays: Mapping[str, Floats]) -> Self:
        """Continue from what `arrays` returned.

        Raises:
            InputError: An array is missing or of another shape.
        """
        facts = checked_array(arrays, "guard.facts", (len(_FACTS),))
        for name, value in zip(_FACTS, facts.tolist(), strict=True):
            setattr(self, name, type(getattr(self, name))(value))
        self._comparison = self._new_comparison()
        for part, holder in self._parts().items():
            start = f"{part}."
            holder.restore({name.removeprefix(start): arrays[name] for name in arrays if name.startswith(start)})
        return self

    def _parts(self) -> dict[str, OnlineLearner | DriftMonitor | Comparison]:
        return {
            "learner": self.learner,
            "members": self.monitor,
            "scores": self._scores,
            "comparison": self._comparison,
        }

    def _new_comparison(self) -> Comparison:
        """After each way back the next takeover needs twice the evidence: all of them together are wrong with twice `error`."""
        return Comparison(error=max(self._error / 2**self._num_returns, _LEAST_ERROR), max_weight=self._max_weight)

    def _change(self, kind: ChangeKind, reason: str, member: str = "", **figures: Any) -> Change:
        self._num_changes += 1
        figures = {"judged": self.learner.count, **({"member": member} if member else {}), **figures}
        return Change(
            id=f"{self._num_changes}-{kind}{member and ':' + member}", kind=kind, reason=reason, figures=figures
        )

    def _watch_members(self, served: ServedAnswer, feedback: Feedback) -> list[Change]:
        changes, scores = [], feedback.scores_of(served)
        features = self.learner.policy.features_near(served.query)
        known = {
            name: (float(competence), float(deviation))
            for name, competence, deviation in zip(
                self.learner.base.members, features.competence[0], features.deviation[0], strict=True
            )
        }
        for member in self.monitor.members:
            if member not in scores or member not in served.asked:
                continue
            expected = self.monitor.expected(member)
            happened = self.monitor.update(member, scores[member], *known[member])
            if happened is None:
                continue
            fell = happened == "fell"
            if not fell:  # until then nobody asks it for what it knows, and a person may undo
                self.learner.forget(member, near=served.query, competence=expected)
            reason = (
                f"{member} scores less than the {expected:.2f} that is expected of it."
                if fell
                else f"{member} scores more than half of the {expected:.2f} that it did before it fell."
            )
            if self.mode == "shadow":
                reason += " In shadow nothing follows."
            rate = self.monitor.run_length if fell else self.monitor.return_run_length
            changes.append(
                self._change(
                    "left_out" if fell else "returned", reason, member, expected=round(expected, 4), run_length=rate
                )
            )
        return changes

    def _compare(self, served: ServedAnswer, feedback: Feedback) -> None:
        """Compare the policy that does not serve with the one that does, on what that one decided."""
        if served.pinned or not served.available:
            return
        new = self.learner.policy
        by_incumbent = served.policy_id == getattr(self.incumbent, "policy_id", None)
        if self.serves_learner == by_incumbent or not (by_incumbent or served.policy_id.startswith("online-")):
            return  # another policy decided: it was served before a change
        one: EnsemblePolicy = new
        other: EnsemblePolicy = self.incumbent
        if not self.serves_learner:
            one, other = self.incumbent, new
        did = done_by(one, served, feedback)
        # No difference is expected: a model's opinion of where nothing can be seen must not decide who serves.
        self._comparison.add(served, did, follow(other, served, feedback))
        if served.explored:
            return
        worth = (1.0 + feedback.score - did.charge) / 2  # as the comparison counts it, in [0, 1]
        if not self.serves_learner:
            self._num_scores = min(self._num_scores + 1, _MEMORY)
            self._mean_worth += (worth - self._mean_worth) / self._num_scores
        elif self._num_scores:
            self._has_fallen |= self._scores.update(_SERVED, worth, self._mean_worth) == "fell"

    def _decide(self) -> list[Change]:
        difference = self.difference
        figures = {
            "difference": round(difference.mean, 4),
            "low": round(difference.low, 4),
            "high": round(difference.high, 4),
            "compared": difference.count,
            "seen": round(difference.seen, 4),
        }
        if not self.serves_learner:
            if difference.low > 0 and not self._is_forbidden:
                return [self._serve(learner=True, reason="It is better than the policy that served.", **figures)]
            return []
        if self._has_fallen:
            reason = "Its answers are worth less than those of the policy before."
            return [self._serve(learner=False, reason=reason, **figures)]
        if difference.low > 0:
            return [self._serve(learner=False, reason="The policy before is better.", **figures)]
        return []

    def _serve(self, *, learner: bool, reason: str, **figures: Any) -> Change:
        self._learner_serves, self._has_fallen = learner, False
        self._num_returns += not learner
        self._comparison = self._new_comparison()
        self._scores.bring_back(_SERVED)
        return self._change("took_over" if learner else "went_back", reason, **figures)
