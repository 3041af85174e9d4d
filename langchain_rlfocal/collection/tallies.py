"""What has come of a collection so far: counts, which whoever shows progress reads at each change."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(slots=True, kw_only=True)
class MemberTally:
    """What has come of one member so far.

    Attributes:
        name: Its name.
        total: Answers that are wanted of it.
        on_record: How many of them were on record before.
        answered: Answers in this run.
        failed: Failures in this run.
        elsewhere: Answers that other collectors recorded meanwhile.
        in_flight: Calls that are out.
        prompt_tokens: Tokens of prompts in this run, as far as reported.
        completion_tokens: Tokens of responses in this run, as far as reported.
        usd: Dollars in this run, as far as prices are known.
        unpriced: Answers in this run whose price is unknown.
        truncated: Answers in this run that break off.
        first_failure: Why it failed first.
        waits_for: What it waits for, None while it works.
        given_up: Why nothing more is asked of it, None where nothing keeps it.
    """

    name: str
    total: int = 0
    on_record: int = 0
    answered: int = 0
    failed: int = 0
    elsewhere: int = 0
    in_flight: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float = 0.0
    unpriced: int = 0
    truncated: int = 0
    first_failure: str | None = None
    waits_for: str | None = None
    given_up: str | None = None

    @property
    def done(self) -> int:
        """Answers on record, and failures of this run."""
        return self.on_record + self.answered + self.failed + self.elsewhere

    @property
    def missing(self) -> int:
        """Answers that are not on record: failed ones, and those never asked for."""
        return self.total - self.on_record - self.answered - self.elsewhere


Ended = Literal["running", "complete", "stopped", "budget"]


@dataclass(slots=True, kw_only=True)
class Tally:
    """What has come of a collection so far.

    Attributes:
        members: Of each member, by name, in the pool's order.
        ended: `"running"`; `"complete"` once every member was asked everything or given up; `"stopped"` where the caller
            stopped it; `"budget"` where the dollars did not suffice.
        unscored: Answers that nobody scored, this run's and earlier ones.
        outdated: Answers on record that were scored against another right answer than the question has now.
        scored: Answers of earlier runs that were scored in this one.
        scoring_usd: What scoring cost in this run, as far as it is known.
        first_scoring_error: Why an answer could not be scored.
        trouble: Why answers cannot be recorded at this moment, None while they can.
    """

    members: dict[str, MemberTally]
    ended: Ended = "running"
    unscored: int = 0
    outdated: int = 0
    scored: int = 0
    scoring_usd: float = 0.0
    first_scoring_error: str | None = None
    trouble: str | None = None

    def sum(self, name: str) -> int:
        """Add up one count of all members."""
        return sum(getattr(member, name) for member in self.members.values())

    @property
    def usd(self) -> float:
        """Dollars of this run, scoring included, as far as prices are known."""
        return sum(member.usd for member in self.members.values()) + self.scoring_usd

    @property
    def silent(self) -> list[str]:
        """Members that failed whenever they were asked in this run."""
        return [m.name for m in self.members.values() if m.failed and not m.answered]


Watch = Callable[[Tally], None]
