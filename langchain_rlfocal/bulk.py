"""Bulk answering: rows of questions in; rows of answers, decisions and costs out.

`RLFocalBatch` answers batches of rows, as Ray Data's `map_batches` gives them to an actor; `answer_dataset` has any engine do it. A
question that cannot be answered has its error in a column; nothing a member does ends the work. A model is made where it
works, once in each worker: most models cannot be pickled.
"""

import asyncio
import json
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from langchain_rlfocal.collection.pricing import messages_of
from langchain_rlfocal.engines import Engine, Handle, LocalEngine
from langchain_rlfocal.errors import InputError, WorkerError
from langchain_rlfocal.outcomes import Question

if TYPE_CHECKING:
    from langchain_rlfocal.chat_models import RLFocalChatModel

MakeModel = Callable[[], "RLFocalChatModel"]
"""Makes the model where it is to work; a function of a module, so that it can be pickled."""

ANSWER_COLUMNS = (
    "answer",
    "error",
    "members",
    "calls",
    "prompt_tokens",
    "completion_tokens",
    "usd",
    "seconds",
    "decision",
)
"""What an answer adds to its row: its text, or why there is none; who was asked, separated by commas; how many calls; tokens and
dollars, null where unknown; how long it took; and `response_metadata["rlfocal"]` as JSON."""

MAX_CONCURRENCY = 8
"""Questions that a worker answers at the same time."""

BATCH_SIZE = 32
"""Questions that a worker takes at a time."""


class RLFocalBatch:
    """Answers batches of rows; a callable class, of which each actor makes its own.

    Example:
        ```python
        import ray
        from langchain_rlfocal.bulk import RLFocalBatch

        answers = ray.data.read_json("questions.jsonl").map_batches(
            RLFocalBatch, fn_constructor_args=[make_model], batch_size=64, compute=ray.data.ActorPoolStrategy(size=4)
        )
        answers.write_parquet("answers")
        ```

    Args:
        make_model: Makes the model.
        max_concurrency: Questions that are answered at the same time.
    """

    def __init__(self, make_model: MakeModel, *, max_concurrency: int = MAX_CONCURRENCY) -> None:
        self._model, self._max_concurrency = make_model(), max_concurrency
        self._loop = asyncio.Runner()  # one loop for all batches, since connections of clients belong to it
        weakref.finalize(self, self._loop.get_loop().close)  # all that may be done wherever it is called

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Answer the rows of a batch.

        Args:
            batch: Columns by name. `query` is what is asked; others go through.

        Returns:
            The columns, and `ANSWER_COLUMNS`.

        Raises:
            InputError: There is no column `query`.
        """
        if "query" not in batch:
            raise InputError(
                f"A batch must have the column `query`, got {', '.join(sorted(batch)) or 'none'}. Rename a column."
            )
        answers = self._run(self._answer([(str(query), ()) for query in batch["query"]]))
        given = {name: list(column) for name, column in batch.items() if name not in ANSWER_COLUMNS}
        return given | {name: [answer[name] for answer in answers] for name in ANSWER_COLUMNS}

    def questions(self, questions: Sequence[Question], *, tell: "_Tell | None" = None) -> list[dict[str, Any]]:
        """Answer questions: those with a conversation by all of it, with its tools.

        Args:
            questions: What to answer.
            tell: Told each answer as it comes.
        """
        inputs = [(messages_of(one), [dict(tool) for tool in one.tools]) for one in questions]

        async def told(place: int, row: dict[str, Any]) -> None:
            if tell is not None:
                await tell(questions[place], row)

        return self._run(self._answer(inputs, told))

    def _run(self, asking: Coroutine[Any, Any, list[dict[str, Any]]]) -> list[dict[str, Any]]:
        try:
            return self._loop.run(asking)
        except KeyboardInterrupt:
            self._loop.close()  # calls that are out are called off
            raise

    async def _answer(
        self,
        inputs: Sequence[tuple[Any, Sequence[Any]]],
        told: Callable[[int, dict[str, Any]], Awaitable[None]] | None = None,
    ) -> list[dict[str, Any]]:
        free = asyncio.Semaphore(self._max_concurrency)

        async def one(place: int, asked: Any, tools: Sequence[Any]) -> dict[str, Any]:
            async with free:
                started = time.perf_counter()
                try:
                    model = self._model.bind_tools(tools) if tools else self._model
                    message = await model.ainvoke(asked)
                except Exception as error:  # noqa: BLE001  # the row's
                    row = _row(error=f"{type(error).__name__}: {error}", seconds=time.perf_counter() - started)
                else:
                    row = _answered(self._model, message, time.perf_counter() - started)
                if told is not None:
                    await told(place, row)
                return row

        return [*await asyncio.gather(*(one(place, *given) for place, given in enumerate(inputs)))]


_Tell = Callable[[Question, dict[str, Any]], Awaitable[None]]


class _Basket:
    """Answers on their way from workers to the caller."""

    def __init__(self) -> None:
        self._rows: list[tuple[Question, dict[str, Any]]] = []

    def put(self, question: Question, row: dict[str, Any]) -> None:
        """Lay one in."""
        self._rows.append((question, row))

    def empty(self) -> list[tuple[Question, dict[str, Any]]]:
        """Take all out."""
        rows, self._rows = self._rows, []
        return rows


def answer_dataset(
    make_model: MakeModel,
    questions: Iterable[Question],
    *,
    engine: Engine | None = None,
    batch_size: int = BATCH_SIZE,
    max_concurrency: int = MAX_CONCURRENCY,
    on_answer: Callable[[Question, dict[str, Any]], None] | None = None,
) -> Generator[tuple[Question, dict[str, Any]]]:
    """Answer questions on an engine; each comes with `ANSWER_COLUMNS` as its batch is done.

    Args:
        make_model: Makes the model, once in each worker.
        questions: What to ask; taken as workers become free.
        engine: Where; by default in this process.
        batch_size: Questions that a worker takes at a time, and that are asked again where it is killed.
        max_concurrency: Questions that a worker answers at the same time.
        on_answer: Called with each as it is answered, before its batch is done, so that nothing that was answered is lost where
            this is interrupted; again where its batch is given out again.

    Raises:
        WorkerError: No worker can begin.
        Exception: What `make_model` raises.
    """
    engine = engine or LocalEngine()
    basket: Handle | None = None
    tell: _Tell | None = None
    if on_answer is not None and isinstance(engine, LocalEngine) and engine.workers == 1:  # in this process
        tell = partial(_call, on_answer)
    elif on_answer is not None:
        basket = engine.share(_Basket())
        tell = partial(basket.acall, "put")

    def take() -> None:
        if basket is not None and on_answer is not None:
            for given in basket.call("empty"):
                on_answer(*given)

    begin = partial(_begin, make_model, max_concurrency, tell)
    try:
        for done in engine.map(begin, _batches(questions, batch_size), on_wait=take):
            take()
            if isinstance(done.error, WorkerError):  # its workers were killed: it has no answers
                answers = [_row(error=f"WorkerError: {done.error}")] * len(done.item)
                for question, row in zip(done.item, answers, strict=True):
                    if on_answer is not None:
                        on_answer(question, row)
            else:
                answers = done.result()
            yield from zip(done.item, answers, strict=True)
    finally:
        take()


async def _call(on_answer: Callable[[Question, dict[str, Any]], None], question: Question, row: dict[str, Any]) -> None:
    on_answer(question, row)


def _begin(
    make_model: MakeModel, max_concurrency: int, tell: _Tell | None
) -> Callable[[Sequence[Question]], list[dict[str, Any]]]:
    return partial(RLFocalBatch(make_model, max_concurrency=max_concurrency).questions, tell=tell)


def _batches(questions: Iterable[Question], size: int) -> Iterator[tuple[Question, ...]]:
    source = iter(questions)
    while batch := tuple(islice(source, size)):
        yield batch


def _row(**known: Any) -> dict[str, Any]:
    return dict.fromkeys(ANSWER_COLUMNS) | known


def _answered(model: "RLFocalChatModel", message: Any, seconds: float) -> dict[str, Any]:
    decision = message.response_metadata["rlfocal"]
    usage = message.usage_metadata or {}
    asked = list(dict.fromkeys(row["member"] for row in (*decision["candidates"], *decision["failures"])))
    return _row(
        answer=message.text or json.dumps([dict(call) for call in message.tool_calls], default=str),
        members=",".join(asked),
        calls=decision["spent"]["calls"],
        prompt_tokens=usage.get("input_tokens"),
        completion_tokens=usage.get("output_tokens"),
        usd=decision["spent"]["usd"] if all(_has_price(model.pool[name]) for name in asked) else None,
        seconds=seconds,
        decision=json.dumps(decision, ensure_ascii=False, default=str),
    )


def _has_price(member: Any) -> bool:
    return member.max_cost_usd(prompt_tokens=0, completion_tokens=0) is not None
