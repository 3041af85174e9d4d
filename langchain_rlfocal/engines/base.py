"""What an engine is: workers that begin once and then work on one piece after the other.

A piece that raises has its error as a value. A worker that dies, whoever killed it, is replaced, and its piece is given out
again: what a piece does must bear being begun again. The order of results is that in which they come.
"""

import pickle
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from langchain_rlfocal.errors import RLFocalError, WorkerError

Item = TypeVar("Item")
Value = TypeVar("Value")
Work = Callable[[Item], Value]
Begin = Callable[[], Work[Item, Value]]
"""What every worker calls once, where it works: it returns what is called with each piece. Workers of other processes get it by pickle."""

MAX_DEATHS = 3
"""So many workers may die over one piece; the next one's death is the piece's error."""

WAIT_S = 0.1
"""How often an engine that waits calls `on_wait`."""


@dataclass(frozen=True, slots=True)
class Done(Generic[Item, Value]):
    """What came of one piece.

    Attributes:
        item: The piece.
        value: What the work returned.
        error: What it raised; None where it returned.
        deaths: Workers that died over it.
    """

    item: Item
    value: Value | None = None
    error: Exception | None = None
    deaths: int = 0

    def result(self) -> Value:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # where nothing was raised it is what the work returned


class Handle(Protocol):
    """Leads to an object that an engine keeps for its caller and all workers; a worker gets it with what it begins with.

    The object does one call at a time.
    """

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of the object; arguments and result travel by pickle."""

    async def acall(self, method: str, *args: Any) -> Any:
        """Call a method of the object without holding up the event loop."""


class Engine(Protocol):
    """Does pieces of work, and replaces workers that die; a context manager.

    Attributes:
        workers: How many work at the same time.
        machines: On how many machines.
    """

    @property
    def workers(self) -> int:
        """How many work at the same time."""

    @property
    def machines(self) -> int:
        """On how many machines."""

    def share(self, value: object) -> Handle:
        """Keep an object that the caller and all workers can call."""

    def map(
        self,
        begin: Begin[Item, Value],
        items: Iterable[Item],
        *,
        on_wait: Callable[[], None] | None = None,
        on_death: Callable[[Item, str], None] | None = None,
    ) -> Generator[Done[Item, Value]]:
        """Have every piece worked on, and yield what comes of each as it comes.

        Closing the generator ends its workers at once.

        Args:
            begin: What each worker begins with.
            items: The pieces; they are taken as workers become free.
            on_wait: Called every `WAIT_S` while nothing comes.
            on_death: Called with the piece whose worker died, and why.

        Raises:
            WorkerError: No worker can begin.
            Exception: What `begin` raised.
        """

    def close(self) -> None:
        """End all workers, and what the engine keeps."""


# ---- handing out


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker has begun."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A worker has done its piece, or could not begin.

    Attributes:
        value: What the work returned.
        error: What it, or `begin`, raised.
    """

    value: Any = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Died:
    """A worker is no more.

    Attributes:
        reason: Why, as far as that is known.
    """

    reason: str


class Worker(Protocol):
    """One worker, as its engine sees it."""

    def give(self, item: Any) -> None:
        """Have it work on a piece."""

    def end(self) -> None:
        """End it, whatever it does."""


class Crew(Protocol):
    """How an engine starts workers and hears of them."""

    def start(self) -> Worker:
        """Start a worker, which says `Ready` once it has begun."""

    def wait(self, workers: Sequence[Any], timeout_s: float) -> list[tuple[Any, Ready | Outcome | Died]]:
        """Wait until some workers have something to say, but no longer than that."""


@dataclass(slots=True, eq=False)
class _Piece(Generic[Item]):
    item: Item
    deaths: int = 0


def hand_out(
    crew: Crew,
    items: Iterable[Item],
    *,
    workers: int,
    on_wait: Callable[[], None] | None,
    on_death: Callable[[Item, str], None] | None,
) -> Generator[Done[Item, Any]]:
    """Hand pieces out to workers of a crew, and replace those that die; see `Engine.map`."""
    source = iter(items)
    left: deque[_Piece[Item]] = deque()
    starting: set[Worker] = set()
    idle: list[Worker] = []
    busy: dict[Worker, _Piece[Item]] = {}
    num_stillborn = 0
    try:
        while True:
            while len(left) + len(busy) < workers:
                try:
                    left.append(_Piece(next(source)))
                except StopIteration:
                    break
            if not left and not busy:
                return
            while left and idle:
                worker = idle.pop()
                busy[worker] = left.popleft()
                worker.give(busy[worker].item)
            for _ in range(min(len(left) - len(starting), workers - len(starting) - len(busy))):
                starting.add(crew.start())
            events = crew.wait([*starting, *idle, *busy], WAIT_S)
            if not events and on_wait is not None:
                on_wait()
            for worker, event in events:
                match event:
                    case Ready():
                        starting.discard(worker)
                        idle.append(worker)
                        num_stillborn = 0
                    case Outcome(value, error) if worker in busy:
                        piece = busy.pop(worker)
                        idle.append(worker)
                        yield Done(piece.item, value, error, piece.deaths)
                    case Outcome(_, error):
                        raise error or WorkerError("A worker must say what it does.")
                    case Died(reason):
                        worker.end()
                        idle = [one for one in idle if one is not worker]
                        if worker in starting:
                            starting.discard(worker)
                            num_stillborn += 1
                            if num_stillborn > MAX_DEATHS:
                                raise WorkerError(
                                    f"{num_stillborn} workers in a row died before they could begin, the last since {reason}. Free "
                                    "memory, or start fewer workers."
                                )
                        elif worker in busy:
                            piece = busy.pop(worker)
                            piece.deaths += 1
                            if on_death is not None:
                                on_death(piece.item, reason)
                            if piece.deaths > MAX_DEATHS:
                                yield Done(piece.item, None, _killed(piece.deaths, reason), piece.deaths)
                            else:
                                left.appendleft(piece)
    finally:
        for worker in [*starting, *idle, *busy]:
            worker.end()


def _killed(deaths: int, reason: str) -> WorkerError:
    return WorkerError(
        f"{deaths} workers in a row died over one piece of work, the last since {reason}. Where memory runs out, start fewer workers; "
        "what is finished is kept."
    )


def attempted(function: Callable[[], Any]) -> Outcome:
    """Call a function, with what it raises as a value that travels."""
    try:
        return Outcome(function())
    except Exception as error:  # noqa: BLE001  # whatever the work raises is its caller's to judge
        return Outcome(error=portable(error))


def portable(error: Exception) -> Exception:
    """Return an error as it is where it can be pickled, else one that says the same."""
    try:
        copied = pickle.loads(pickle.dumps(error))  # noqa: S301  # its own bytes
        if type(copied) is type(error) and str(copied) == str(error):
            return error
    except Exception:  # noqa: BLE001, S110  # that is what is asked
        pass
    return RLFocalError(f"{type(error).__name__}: {error}")


def untold(reason: object) -> WorkerError:
    """Say that what a work returned cannot travel."""
    return WorkerError(
        f"What a piece of work returns must be picklable: {reason}. Return values, not what holds a lock or a file."
    )
