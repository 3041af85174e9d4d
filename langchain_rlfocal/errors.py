"""Errors: everything the package raises on purpose.

RLFocalError
├── InputError (ValueError)             what was asked cannot be asked: no messages, an unusable argument
├── PoolError (ValueError)              the pool is not a pool: empty, a name twice, a member nobody knows
├── OutcomeError (ValueError)           a table breaks a rule: names the file, row, column and rule
├── FeedbackError (ValueError)          feedback is about no recorded answer, or breaks a rule
├── OutcomeLogError (OSError)           a log of outcomes cannot be opened, read or written: names the log
├── CheckpointError (ValueError)        a checkpoint cannot be read, or belongs to another pool
├── CertificationError                  a promise could not be shown: says how many rows it needs, or that none help
├── WorkerError                         workers of an engine cannot begin, or died again and again over the same work
├── MissingDependencyError (ImportError) an optional part is absent: names the command that installs it
├── EnsembleError                       no member answered: names every member and its cause
│   ├── DeadlineError (TimeoutError)    too few had answered when the time was up
│   ├── BudgetError                     too few could be asked for what was left to spend
│   └── OverloadError                   more answers are in flight than can be served now; always retryable
└── DisagreementError                   members answered, but no action has a majority, and the caller wants none else

Every message says the rule, the value that broke it, and the way out. Each also derives from the built-in that fits, so
that code which knows nothing of this package can still catch it. `docs/reference/errors.md` is made of the docstrings below: when
it is raised, then the way out.
"""

from collections.abc import Mapping
from typing import Literal


class RLFocalError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(RLFocalError, ValueError):
    """What was asked cannot be asked: no messages, or an argument outside its range.

    Way out: Give what the message names.
    """


class PoolError(RLFocalError, ValueError):
    """The pool is empty, names a member twice, or holds a member that the policy does not know.

    Way out: Name the members as the policy knows them, each once; leave out whom it does not know, or train anew.
    """


class OutcomeError(RLFocalError, ValueError):
    """A table of outcomes or questions breaks a rule.

    Way out: Mend the row and column that the message names, or leave the row out; unknown is null, never 0.

    Attributes:
        file: The file that was read, or None for a table in memory.
        row: The row that breaks the rule, counted from 1 without the header, or None for the whole table.
        column: The column that breaks the rule, or None for the whole row.
        rule: The rule, as a sentence.
    """

    def __init__(
        self, rule: str, *, file: str | None = None, row: int | None = None, column: str | None = None
    ) -> None:
        self.rule, self.file, self.row, self.column = rule, file, row, column
        place = [f"file {file}" if file else "", f"row {row}" if row else "", f"column `{column}`" if column else ""]
        where = ", ".join(part for part in place if part)
        super().__init__(f"{where}: {rule}" if where else rule)


class FeedbackError(RLFocalError, ValueError):
    """Feedback is about no answer that was recorded, is given twice, or has a score outside its range.

    Way out: Give the message that `invoke` returned, or its id, from the log that the model records into; score in [0, 1].

    Attributes:
        reason: `"unknown"` where the log has no such answer, `"repeated"` where the answer has feedback already, else `"invalid"`.
    """

    def __init__(self, message: str, *, reason: Literal["unknown", "repeated", "invalid"] = "invalid") -> None:
        self.reason = reason
        super().__init__(message)


class OutcomeLogError(RLFocalError, OSError):
    """A log of outcomes cannot be opened, read or written, or is of a later version; the message names the file.

    Way out: Free the disk or the lock, name another file, or update the package where a later version wrote the log.
    """


class CheckpointError(RLFocalError, ValueError):
    """A checkpoint is missing, damaged, of another format, or was trained for another pool.

    Way out: Name the folder that `rlfocal train` wrote, whole; where it is of another pool or format, train again.
    """


class CertificationError(RLFocalError):
    """A promise could not be shown on the rows there are.

    Way out: Collect as many rows as `rows_needed` says, promise less, or allow more errors (`--confidence`).

    Attributes:
        rows_needed: With how many it probably could; None where no number would help, or nothing is known.
    """

    def __init__(self, message: str, *, rows_needed: int | None) -> None:
        self.rows_needed = rows_needed
        super().__init__(message)


class WorkerError(RLFocalError):
    """Workers of an engine cannot begin, or died again and again over the same piece of work.

    Way out: Start fewer workers where memory runs out; on a cluster, install the same packages on each machine. What is finished is kept.
    """


class MissingDependencyError(RLFocalError, ImportError):
    """An optional part is not installed; the message names the command that installs it.

    Way out: Run the command that the message names.
    """


class EnsembleError(RLFocalError):
    """No member answered, or too few.

    Way out: Read `failures`: each says what its member needs. Where `is_retryable` is true, ask again later.

    Attributes:
        failures: Why each asked member failed, by its name.
        is_retryable: True if asking again may help: at least one cause was a passing one.
    """

    def __init__(self, message: str, *, failures: Mapping[str, str] | None = None, is_retryable: bool = False) -> None:
        self.failures = dict(failures or {})
        self.is_retryable = is_retryable
        super().__init__(message)


class DeadlineError(EnsembleError, TimeoutError):
    """Too few members had answered when the time was up.

    Way out: Allow more time (`deadline_s`), or be content with fewer answers (`min_candidates`).
    """


class BudgetError(EnsembleError):
    """Too few members could be asked for what was left to spend.

    Way out: Allow more (`budget_per_answer`, `budget`), or start to count anew: `model.reset_spending()`.
    """


class OverloadError(EnsembleError):
    """More answers are in flight than can be served now; nothing was sent, and asking again later may help.

    Way out: Ask again after `retry_after_s`; LangChain's `with_retry` and `with_fallbacks` work.

    Attributes:
        retry_after_s: Seconds after which to ask again.
    """

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message, is_retryable=True)


class DisagreementError(RLFocalError):
    """Members answered, but on what to do they disagree; raised only where the caller asked for it.

    It is not an `EnsembleError`, so that a handler of those does not act where nobody agrees.

    Way out: Take one of `proposals`, ask a person, or leave `on_disagreement` at its default, which follows the weightiest.

    Attributes:
        proposals: What each member would have done, by its name.
    """

    def __init__(self, message: str, *, proposals: Mapping[str, str] | None = None) -> None:
        self.proposals = dict(proposals or {})
        super().__init__(message)
