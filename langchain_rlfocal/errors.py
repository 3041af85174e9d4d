"""Errors: everything the package raises on purpose.

RLFocalError
├── InputError (ValueError)             what was asked cannot be asked: no messages, an unusable argument
├── PoolError (ValueError)              the pool is not a pool: empty, a name twice, a member nobody knows
├── OutcomeError (ValueError)           a table breaks a rule: names the file, row, column and rule
├── FeedbackError (ValueError)          feedback is about no recorded answer, or breaks a rule
├── OutcomeLogError (OSError)           a log of outcomes cannot be opened, read or written: names the file
├── CheckpointError (ValueError)        a checkpoint cannot be read, or belongs to another pool
├── CertificationError                  a promise could not be shown: says how many rows it needs, or that none help
├── MissingDependencyError (ImportError) an optional part is absent: names the command that installs it
├── EnsembleError                       no member answered: names every member and its cause
│   ├── DeadlineError (TimeoutError)    too few had answered when the time was up
│   ├── BudgetError                     too few could be asked for what was left to spend
│   └── OverloadError                   more answers are in flight than can be served now; always retryable
└── DisagreementError                   members answered, but no action has a majority, and the caller wants none else

Every message says the rule, the value that broke it, and the way out. Each also derives from the built-in that fits, so
that code which knows nothing of this package can still catch it.
"""

from collections.abc import Mapping


class RLFocalError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(RLFocalError, ValueError):
    """What was asked cannot be asked: no messages, or an argument outside its range."""


class PoolError(RLFocalError, ValueError):
    """The pool is empty, names a member twice, or holds a member that the policy does not know."""


class OutcomeError(RLFocalError, ValueError):
    """A table of outcomes or questions breaks a rule.

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
    """Feedback is about no answer that was recorded, is given twice, or has a score outside its range."""


class OutcomeLogError(RLFocalError, OSError):
    """A log of outcomes cannot be opened, read or written, or is of a later version; the message names the file."""


class CheckpointError(RLFocalError, ValueError):
    """A checkpoint is missing, damaged, of another format, or was trained for another pool."""


class CertificationError(RLFocalError):
    """A promise could not be shown on the rows there are.

    Attributes:
        rows_needed: With how many it probably could; None where no number would help, or nothing is known.
    """

    def __init__(self, message: str, *, rows_needed: int | None) -> None:
        self.rows_needed = rows_needed
        super().__init__(message)


class MissingDependencyError(RLFocalError, ImportError):
    """An optional part is not installed; the message names the command that installs it."""


class EnsembleError(RLFocalError):
    """No member answered, or too few.

    Attributes:
        failures: Why each asked member failed, by its name.
        is_retryable: True if asking again may help: at least one cause was a passing one.
    """

    def __init__(self, message: str, *, failures: Mapping[str, str] | None = None, is_retryable: bool = False) -> None:
        self.failures = dict(failures or {})
        self.is_retryable = is_retryable
        super().__init__(message)


class DeadlineError(EnsembleError, TimeoutError):
    """Too few members had answered when the time was up."""


class BudgetError(EnsembleError):
    """Too few members could be asked for what was left to spend."""


class OverloadError(EnsembleError):
    """More answers are in flight than can be served now; nothing was sent, and asking again later may help.

    Attributes:
        retry_after_s: Seconds after which to ask again.
    """

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message, is_retryable=True)


class DisagreementError(RLFocalError):
    """Members answered, but on what to do they disagree; raised only where the caller asked for it.

    It is not an `EnsembleError`, so that a handler of those does not act where nobody agrees.

    Attributes:
        proposals: What each member would have done, by its name.
    """

    def __init__(self, message: str, *, proposals: Mapping[str, str] | None = None) -> None:
        self.proposals = dict(proposals or {})
        super().__init__(message)
