"""How fast and how large the package is, each figure beside what it is to be compared with.

    python docs/benchmarks/bench.py                    all rows, about eight minutes; writes docs/benchmarks/results.md
    python docs/benchmarks/bench.py --only answer      one row or several (repeat it), printed
    python docs/benchmarks/bench.py --quick            all rows with few repeats, printed

Both sides of a ratio take turns in one process. A ratio is that of the medians; its interval holds 95 % of the ratios of resampled
pairs. Times are the processor's where nothing waits, so that what else the machine does counts little, and the clock's for batches,
first tokens and whole trainings. Each group of rows runs in a process of its own. Members are fake models: the
figures are the package's own work, not that of a provider. Nothing is downloaded, and nothing is read but what ships.
"""

import argparse
import asyncio
import functools
import importlib.util
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda, RunnableParallel
from threadpoolctl import threadpool_limits

from langchain_rlfocal import RLFocalChatModel, RLFocalPolicy

HERE = Path(__file__).parent
RESULTS = HERE / "results.md"
COMMAND = "python docs/benchmarks/bench.py"
VERSIONS = ("langchain-rlfocal", "langchain-core", "langchain-openai", "numpy", "torch", "pyarrow", "pydantic")

Side = Callable[[int], Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the table.

    Attributes:
        name: What is measured.
        ours: What the package takes.
        beside: What it is compared with, and what that takes.
        ratio: The ratio or the exponent, with its interval.
        reach: What the figure has to reach.
        met: Whether it does; None where nothing is to be reached.
    """

    name: str
    ours: str
    beside: str = ""
    ratio: str = ""
    reach: str = ""
    met: bool | None = None


# ---- measuring


async def interleave(
    sides: Mapping[str, Side], *, repeats: int, warmup: int = 10, clock: Callable[[], float] = time.process_time
) -> dict[str, np.ndarray]:
    """Time the sides in turns; each is given the number of the turn, which no other turn has.

    A stream that a side returns is read to its end after the time is taken.

    Returns:
        Seconds of each turn by side, each of shape [repeats].
    """
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(warmup + repeats):
        order = list(sides.items())
        for name, side in order if turn % 2 else reversed(order):
            start = clock()
            left = await side(turn)
            taken[name].append(clock() - start)
            if isinstance(left, Iterator):
                deque(left, maxlen=0)
            elif isinstance(left, AsyncIterator):
                async for _ in left:
                    pass
    return {name: np.array(seconds[warmup:]) for name, seconds in taken.items()}


def processor_s_of(run: Callable[[], object], *, repeats: int) -> float:
    """Median seconds of the processor of some runs, on one thread, after one that does not count."""
    taken = []
    with threadpool_limits(limits=1):
        for _ in range(1 + repeats):
            start = time.process_time()
            run()
            taken.append(time.process_time() - start)
    return statistics.median(taken[1:])


def ratio_of(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float]:
    """Divide the medians; returns the ratio and the bounds of its 95 % interval, by resampling pairs."""
    drawn = np.random.default_rng(0).integers(len(ours), size=(1000, len(ours)))
    ratios = np.median(ours[drawn], axis=1) / np.median(theirs[drawn], axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(np.median(ours) / np.median(theirs)), float(low), float(high)


def exponent_of(sizes: Sequence[float], seconds: Sequence[float]) -> str:
    """Fit seconds = a size^b by least squares of the logarithms.

    Returns:
        b; from three sizes on also its standard error, and b of the last two sizes, where constant parts weigh least.
    """
    x, y = np.log(sizes), np.log(seconds)
    if len(x) < 2:
        return ""
    (slope, start), left = np.polyfit(x, y, 1), len(x) - 2
    if left < 1:
        return f"exponent {slope:.2f}"
    spread = float(((y - slope * x - start) ** 2).sum() / left / ((x - x.mean()) ** 2).sum()) ** 0.5
    last = (y[-1] - y[-2]) / (x[-1] - x[-2])
    return f"exponent {slope:.2f} ± {spread:.2f}, at the end {last:.2f}"


def in_units(seconds: float) -> str:
    """Write seconds with three digits, in the unit that suits them."""
    for scale, unit in ((1e6, "µs"), (1e3, "ms")):
        if seconds * scale < 1e3:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds:.3g} s"


def times_row(name: str, taken: Mapping[str, np.ndarray], *, reach: float | None = None) -> Row:
    """Make the row of how many times as long the first side takes as the second."""
    (_, ours), (other, theirs) = taken.items()
    ratio, low, high = ratio_of(ours, theirs)
    return Row(
        name=name,
        ours=in_units(float(np.median(ours))),
        beside=f"{other}: {in_units(float(np.median(theirs)))}",
        ratio=f"{ratio:.2f}x ({low:.2f} to {high:.2f})",
        reach="" if reach is None else f"at most {reach}x",
        met=None if reach is None else ratio <= reach,
    )


# ---- members


class FakeMember(BaseChatModel):
    """A chat model that gives one answer after some seconds."""

    answer: str
    delay_s: float = 0.0

    @property
    def _llm_type(self) -> str:
        return "fake"

    def _generate(
        self,
        messages: list[BaseMessage],  # noqa: ARG002
        stop: list[str] | None = None,  # noqa: ARG002
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> ChatResult:
        time.sleep(self.delay_s)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.answer))])

    async def _agenerate(
        self,
        messages: list[BaseMessage],  # noqa: ARG002
        stop: list[str] | None = None,  # noqa: ARG002
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> ChatResult:
        await asyncio.sleep(self.delay_s)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.answer))])


def three_members(delay_s: float = 0.0) -> dict[str, BaseChatModel]:
    """Make three members, of which two agree."""
    answers = {"first": "42", "second": "42", "third": "17"}
    return {name: FakeMember(answer=answer, delay_s=delay_s) for name, answer in answers.items()}


def ask_all(members: Mapping[str, BaseChatModel], **settings: Any) -> RLFocalChatModel:
    """Make an ensemble that asks all its members at once."""
    return RLFocalChatModel(members=dict(members), max_team=len(members), max_rounds=1, **settings)


def question_of(turn: int) -> str:
    """Return a question that no other turn has."""
    return f"What is {turn} times 7?"


async def gathered(members: Mapping[str, BaseChatModel], question: str) -> list[AIMessage]:
    """Ask all members at once without the package."""
    return await asyncio.gather(*(member.ainvoke(question) for member in members.values()))


# ---- answers


def answer(*, quick: bool) -> Iterator[Row]:
    """One `ainvoke` of three members that answer at once."""
    members = three_members()
    model = ask_all(members)
    sides: dict[str, Side] = {
        "ours": lambda turn: model.ainvoke(question_of(turn)),
        "gather of the three": lambda turn: gathered(members, question_of(turn)),
    }
    taken = asyncio.run(interleave(sides, repeats=20 if quick else 400))
    yield times_row("one `ainvoke`, three members without latency", taken, reach=2.0)


def batch(*, quick: bool) -> Iterator[Row]:
    """Throughput of `abatch`."""
    number, at_once, delay_s = (20, 10, 0.001) if quick else (400, 200, 0.05)
    members = three_members(delay_s)
    model = ask_all(members)

    def questions_of(turn: int) -> list[str]:
        return [question_of(turn * number + place) for place in range(number)]

    async def by_hand(turn: int) -> None:
        places = asyncio.Semaphore(at_once)

        async def ask(question: str) -> None:
            async with places:
                await gathered(members, question)

        await asyncio.gather(*map(ask, questions_of(turn)))

    sides: dict[str, Side] = {
        "ours": lambda turn: model.abatch(questions_of(turn), {"max_concurrency": at_once}),
        "by hand": by_hand,
    }
    taken = asyncio.run(interleave(sides, repeats=2 if quick else 7, warmup=1, clock=time.perf_counter))
    share, low, high = ratio_of(taken["by hand"], taken["ours"])
    yield Row(
        name=f"`abatch` of {number}, members of {in_units(delay_s)}, `max_concurrency` {at_once}",
        ours=f"{number / np.median(taken['ours']):.0f} answers/s",
        beside=f"gather behind a semaphore: {number / np.median(taken['by hand']):.0f} answers/s",
        ratio=f"{share:.2f} of its throughput ({low:.2f} to {high:.2f})",
        reach="at least 0.8",
        met=share >= 0.8,
    )


def recording(*, quick: bool) -> Iterator[Row]:
    """What a target, a log of outcomes, and learning from it add to an answer; each feedback on its own."""
    from langchain_rlfocal.demo import POLICY_PATH

    trained = RLFocalPolicy.load(POLICY_PATH)
    answers = itertools.cycle(("42", "42", "17"))
    members = {name: FakeMember(answer=said) for name, said in zip(trained.members, answers, strict=False)}
    base: dict[str, Any] = {"members": members, "max_team": 3, "max_rounds": 1, "cost_weight": 0.0}
    judged = 20 if quick else 200

    def compared(plain: RLFocalChatModel, model: RLFocalChatModel) -> dict[str, np.ndarray]:
        sides: dict[str, Side] = {
            "ours": lambda turn: model.ainvoke(question_of(turn)),
            "without": lambda turn: plain.ainvoke(question_of(turn)),
        }
        return asyncio.run(interleave(sides, repeats=40 if quick else 800))

    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, dict[str, Any]] = {
            "within a target": {"target_calls": 50.0},  # it runs at a cost weight of 0, as the other side does
            "recorded": {"outcome_log": f"{folder}/off.db"},
            "recorded, 1 % explored, learned from in shadow": {
                "outcome_log": f"{folder}/shadow.db",
                "learning": "shadow",
                "explore": 0.01,
            },
        }
        for name, extra in settings.items():
            row = f"one `ainvoke`, three of {len(members)} members asked, {name}"
            plain, model = (  # each with a policy of its own, which remembers queries
                RLFocalChatModel(**base, policy=RLFocalPolicy.load(POLICY_PATH), **fields) for fields in ({}, extra)
            )
            if "outcome_log" not in extra:
                yield times_row(row, compared(plain, model), reach=1.05)
                continue
            messages = [model.invoke(question_of(-turn)) for turn in range(1, judged + 1)]
            start = time.perf_counter()
            for message in messages:
                model.feedback(message, 1.0)
            feedback_s = (time.perf_counter() - start) / judged
            yield times_row(row, compared(plain, model), reach=1.05)
            yield Row(name=f"one `feedback`, {name}", ours=in_units(feedback_s))
            model.outcome_log.close()


def first_token(*, quick: bool) -> Iterator[Row]:
    """How long the first token of a lone member's stream takes."""
    from langchain_rlfocal.demo import POLICY_PATH
    from langchain_rlfocal.testing import ScriptedChatModel

    trained = RLFocalPolicy.load(POLICY_PATH)
    member = ScriptedChatModel(script=lambda _: "one two three four five")

    async def of_stream(model: BaseChatModel, turn: int) -> object:
        chunks = model.stream(question_of(turn))
        next(chunks)
        return chunks

    async def of_astream(model: BaseChatModel, turn: int) -> object:
        chunks = model.astream(question_of(turn))
        await anext(chunks)
        return chunks

    for name, policy in (("untrained", None), ("the policy that ships", trained)):
        model = RLFocalChatModel(members=dict.fromkeys(trained.members, member), policy=policy, max_team=1)
        for call, first_of in (("stream", of_stream), ("astream", of_astream)):
            sides: dict[str, Side] = {
                "ours": functools.partial(first_of, model),
                "the member itself": functools.partial(first_of, member),
            }
            taken = asyncio.run(interleave(sides, repeats=10 if quick else 200, clock=time.perf_counter))
            yield times_row(f"first token of a relayed `{call}`, {name}", taken)


def peers(*, quick: bool) -> Iterator[Row]:
    """What others that do the same job take."""
    members = three_members()
    first, second, _ = members.values()
    everybody = ask_all(members)
    one = RLFocalChatModel(members=members, max_team=1)

    def vote(answers: Mapping[str, AIMessage]) -> AIMessage:
        most, _ = Counter(message.text for message in answers.values()).most_common(1)[0]
        return next(message for message in answers.values() if message.text == most)

    pairs: dict[str, tuple[RLFocalChatModel, Any]] = {
        "`with_fallbacks`": (one, first.with_fallbacks([second])),
        "`RunnableParallel` and a majority by hand": (everybody, RunnableParallel(members) | RunnableLambda(vote)),
    }
    router = "`ChatRouter` of langchain-model-router"
    if importlib.util.find_spec("langchain_model_router"):
        from langchain_model_router import ChatRouter, HeuristicStrategy

        strategy = HeuristicStrategy("first", "second")
        pairs[router] = (one, ChatRouter(routes=members, default_route="first", strategy=strategy))
    for name, (ours, theirs) in pairs.items():
        sides: dict[str, Side] = {
            "ours": lambda turn, model=ours: model.ainvoke(question_of(turn)),
            name: lambda turn, model=theirs: model.ainvoke(question_of(turn)),
        }
        taken = asyncio.run(interleave(sides, repeats=20 if quick else 200))
        asked = "three members" if ours is everybody else "one member asked"
        yield times_row(f"one `ainvoke`, {asked}", taken)
    if router not in pairs:
        yield Row(name="one `ainvoke`, one member asked", ours="", beside=f"{router}: not installed")


# ---- memory

PROBE = """
import asyncio, json, sys
def resident_mb():
    import os, resource
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
HEAVY = ("torch", "pyarrow", "pandas", "sklearn", "scipy", "sympy", "transformers")
marks = {}
def mark(name):
    marks[name] = [resident_mb(), [one for one in HEAVY if one in sys.modules]]
import langchain_openai
mark("import langchain_openai")
if sys.argv[1:]:
    from langchain_rlfocal import RLFocalChatModel, RLFocalPolicy
    mark("import")
    policy = RLFocalPolicy.load(sys.argv[1])
    mark("checkpoint")
    from langchain_core.language_models.fake_chat_models import FakeListChatModel
    members = {name: FakeListChatModel(responses=["42"]) for name in policy.members}
    model = RLFocalChatModel(members=members, policy=policy)
    asyncio.run(model.ainvoke("What is 6 times 7?"))
    mark("first answer")
print(json.dumps(marks))
"""


def memory(*, quick: bool) -> Iterator[Row]:
    """Resident memory beside a process that has imported langchain-openai alone."""
    from langchain_rlfocal.demo import POLICY_PATH

    runs: list[dict[str, list[Any]]] = []
    bare: list[float] = []
    for _ in range(1 if quick else 5):
        for arguments in ([], [str(POLICY_PATH)]):
            command = [sys.executable, "-c", PROBE, *arguments]
            marks = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)  # noqa: S603
            if arguments:
                runs.append(marks)
            else:
                bare.append(marks["import langchain_openai"][0])
    base = statistics.median(bare)
    for stage in ("import", "checkpoint", "first answer"):
        grown = sorted(run[stage][0] - base for run in runs)
        loaded = ", ".join(runs[0][stage][1]) or "none"
        middle = statistics.median(grown)
        yield Row(
            name=f"resident memory after the {stage}",
            ours=f"{base + middle:.0f} MB; of torch, pyarrow and their like loaded: {loaded}",
            beside=f"`import langchain_openai`: {base:.0f} MB",
            ratio=f"{middle:+.0f} MB ({grown[0]:+.0f} to {grown[-1]:+.0f})",
            reach="at most +40 MB",
            met=middle <= 40,
        )


# ---- decisions and learning


def accuracies_of(num_members: int) -> dict[str, float]:
    """Name members, and say how often each is right."""
    return {f"member-{number}": 0.4 + 0.4 * number / num_members for number in range(num_members)}


def grids_of(num_members: int, num_queries: int) -> tuple[Any, Any, Any]:
    """Make outcomes, and split them for training, validation and test."""
    from langchain_rlfocal.testing import make_outcomes

    table = make_outcomes({"one": accuracies_of(num_members)}, num_queries=num_queries, num_options=10)
    return table.grid(table.members).split()


@dataclass(frozen=True, slots=True)
class Trained:
    """A policy, the seconds that its training took, and the processor's of each part."""

    policy: RLFocalPolicy
    seconds: float
    processor_s: float
    preparing_s: float
    iteration_s: float
    finishing_s: float


def timed_training(training: Any, validation: Any, **settings: Any) -> Trained:
    """Train and time; an iteration is a rollout and its updates."""
    from langchain_rlfocal.training import TrainingConfig, train

    config = TrainingConfig(**settings)
    start, marks = time.perf_counter(), [time.process_time()]
    policy = train(training, validation, config, on_progress=lambda _: marks.append(time.process_time()))
    seconds, end = time.perf_counter() - start, time.process_time()
    iteration_s = statistics.median(np.diff(marks[1:])) if len(marks) > 2 else 0.0
    return Trained(
        policy=policy,
        seconds=seconds,
        processor_s=end - marks[0],
        preparing_s=marks[1] - marks[0] - iteration_s,
        iteration_s=float(iteration_s),
        finishing_s=end - marks[-1],
    )


def decider_of(policy: RLFocalPolicy) -> Callable[[int], None]:
    """Make the decisions of an answer in two rounds: two `select` and one `fuse`, for a new query each time."""
    from langchain_rlfocal.records import Candidate, Query

    candidates = [
        Candidate(member=name, round=1, text=f"The answer is {said}", answer=said, latency_s=0.0)
        for name, said in zip(policy.members[-3:], ("A", "B", "A"), strict=True)
    ]
    limits: dict[str, Any] = {
        "available": policy.members,
        "max_rounds": 2,
        "max_team": min(8, len(policy.members)),
        "cost_weight": 0.1,
    }
    words = " ".join(f"word{number}" for number in range(100))

    def decide(turn: int) -> None:
        query = Query(f"{words} {turn}", "one")
        policy.select(query, (), (), round_number=1, **limits)
        policy.select(query, candidates, (), round_number=2, **limits)
        policy.fuse(query, candidates, (), max_team=limits["max_team"])

    return decide


def decision(*, quick: bool) -> Iterator[Row]:
    """What the decisions of one answer take."""
    training, validation, _ = grids_of(12, 300)
    with tempfile.TemporaryDirectory() as folder:
        trained = timed_training(training, validation, num_iterations=2, batch_size=256, max_team=8)
        trained.policy.save(Path(folder) / "policy")
        policy = RLFocalPolicy.load(Path(folder) / "policy")
    decide, member = decider_of(policy), FakeMember(answer="42")

    async def ours(turn: int) -> None:
        decide(turn)

    sides: dict[str, Side] = {
        "ours": ours,
        "one `ainvoke` of LangChain": lambda turn: member.ainvoke(question_of(turn)),
    }
    taken = asyncio.run(interleave(sides, repeats=50 if quick else 2000, warmup=50))
    yield times_row("a decision: two `select` and a `fuse`, 12 members, a new query", taken, reach=0.6)


def training(*, quick: bool) -> Iterator[Row]:
    """Whole trainings."""
    from langchain_rlfocal.demo import POLICY_PATH
    from langchain_rlfocal.outcomes import OutcomeTable

    shipped = OutcomeTable.read(Path(POLICY_PATH).with_name("outcomes.parquet"))
    cases: dict[str, tuple[Callable[[], tuple[Any, Any, Any]], float | None, dict[str, int]]] = {
        "936 queries, 8 members": (lambda: grids_of(8, 936), 20, {}),
        "150 queries, 60 members": (lambda: grids_of(60, 150), 60, {}),
        "5,822 queries, 12 members, 4 rounds": (lambda: grids_of(12, 5822), 120, {"max_team": 8, "max_rounds": 4}),
        "the outcomes that ship": (lambda: shipped.grid(shipped.members).split(), None, {}),
    }
    if quick:
        cases = {"60 queries, 3 members": (lambda: grids_of(3, 60), 20, {"num_iterations": 2, "batch_size": 64})}
    for name, (grids, reach, settings) in cases.items():
        parts = grids()
        trained = timed_training(parts[0], parts[1], **settings)
        yield Row(
            name=f"training, {name}",
            ours=f"{trained.seconds:.1f} s, of the processor {trained.processor_s:.1f}: {trained.preparing_s:.1f} to prepare, "
            f"{1e3 * trained.iteration_s:.0f} ms for each iteration, {trained.finishing_s:.1f} to finish",
            reach="" if reach is None else f"at most {reach:.0f} s",
            met=None if reach is None else trained.seconds <= reach,
        )


def growth(*, quick: bool) -> Iterator[Row]:
    """How training and a decision grow with members and queries."""
    numbers: tuple[tuple[int, int], ...]
    longest_s = 5.0 if quick else 90.0
    warm = grids_of(3, 60)
    timed_training(warm[0], warm[1], num_iterations=1, batch_size=64)  # imports what is imported late
    for axis, numbers in (
        ("members", tuple((m, 300) for m in ((4, 8) if quick else (4, 8, 16, 32, 64)))),
        ("queries", tuple((4, q) for q in ((100, 200) if quick else (1_000, 3_000, 10_000, 30_000, 100_000)))),
    ):
        sizes: list[int] = []
        parts: dict[str, list[float]] = {"preparation": [], "iteration": [], "finish": [], "decision": []}
        for num_members, num_queries in numbers:
            size = num_members if axis == "members" else num_queries
            if sizes and sum(times[-1] for times in parts.values()) * size / sizes[-1] > longest_s:
                break  # it would take too long
            grids = grids_of(num_members, num_queries)
            trained = timed_training(grids[0], grids[1], num_iterations=3, max_team=3)
            decide = decider_of(trained.policy)
            decide_next = functools.partial(next, map(decide, itertools.count()))
            sizes.append(size)
            for name, seconds in (
                ("preparation", trained.preparing_s),
                ("iteration", trained.iteration_s),
                ("finish", trained.finishing_s),
                ("decision", processor_s_of(decide_next, repeats=20 if quick else 300)),
            ):
                parts[name].append(max(seconds, 1e-6))
        fixed = f"{numbers[0][1]} queries" if axis == "members" else f"{numbers[0][0]} members"
        names = {
            "preparation": f"training's preparation, {fixed}",
            "iteration": f"an iteration of training, {fixed}",
            "finish": f"training's finish, {fixed}",
            "decision": f"a decision, {fixed}",
        }
        for name, seconds in parts.items():
            yield Row(
                name=f"growth with {axis}: {names[name]}",
                ours=", ".join(map(in_units, seconds)),
                beside=f"{', '.join(f'{size:,}' for size in sizes)} {axis}",
                ratio=exponent_of(sizes, seconds),
            )


def replaying(*, quick: bool) -> Iterator[Row]:
    """How many recorded queries a policy answers in a second."""
    from langchain_rlfocal.environment import replay

    grids = grids_of(12, 100 if quick else 3000)
    trained = timed_training(grids[0], grids[1], num_iterations=2, batch_size=256, max_team=8, max_rounds=4)
    play = functools.partial(replay, trained.policy, grids[0], cost_weight=0.1, max_team=8, max_rounds=4)
    rate = len(grids[0]) / processor_s_of(play, repeats=2 if quick else 9)
    decisions = float(play().rounds.mean()) + 1
    yield Row(
        name="recorded queries replayed, 12 members, 4 rounds",
        ours=f"{rate:,.0f} queries/s ({rate * decisions:,.0f} decisions/s)",
    )


def released(*, quick: bool) -> Iterator[Row]:
    """How fast a policy learns, beside the loop of the released research code."""
    import torch

    sys.path.insert(0, str(HERE))
    from released import released as released_loop

    torch.set_num_threads(1)  # as both set it themselves: small matrices are faster on one thread

    num_queries, num_members, num_options = (60, 3, 4) if quick else (250, 5, 4)
    num_train, passes, batch_size = 4 * num_queries // 5, 1 if quick else 10, 64 if quick else 2048
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(num_options), size=(num_queries, num_members))
    labels = rng.integers(num_options, size=(1, num_queries))
    visits = 2 * passes * num_train + num_queries - num_train
    grids = grids_of(num_members, num_queries)
    ours, theirs = [], []
    for _ in range(2 if quick else 6):
        start = time.process_time()
        released_loop(probs, labels, num_train=num_train, passes=passes)
        theirs.append((time.process_time() - start) / visits)
        trained = timed_training(grids[0], grids[1], num_iterations=4 if quick else 10, batch_size=batch_size)
        ours.append(trained.iteration_s / batch_size)
    del ours[0], theirs[0]  # the first time counts imports
    ratio, low, high = ratio_of(np.array(theirs), np.array(ours))
    yield Row(
        name=f"learning, {num_members} members: rollouts and updates",
        ours=f"{1 / statistics.median(ours):,.0f} episodes/s",
        beside=f"the released code's loop: {1 / statistics.median(theirs):,.0f} rows/s",
        ratio=f"{ratio:.1f}x as many ({low:.1f} to {high:.1f})",
    )


def diversity(*, quick: bool) -> Iterator[Row]:
    """Every team of a pool, on random queries: the hardest case, since hardly two look alike."""
    from langchain_rlfocal.diversity import all_teams, team_diversities

    num_queries, num_members = (500, 5) if quick else (10_000, 12)
    rng = np.random.default_rng(0)
    correct = rng.random((num_queries, num_members)) < 0.5
    answer_ids = np.where(correct, 0, rng.integers(1, 10, correct.shape))
    teams = all_teams(num_members)
    for name, given in (("correctness alone", None), ("and plurality accuracy", answer_ids)):
        measure = functools.partial(team_diversities, correct, teams=teams, answer_ids=given)
        yield Row(
            name=f"diversity of all {len(teams):,} teams of {num_members}, {num_queries:,} queries, {name}",
            ours=in_units(processor_s_of(measure, repeats=2 if quick else 9)),
        )


# ---- the table

GROUPS: dict[str, Callable[..., Iterator[Row]]] = {
    "answer": answer,
    "recording": recording,
    "batch": batch,
    "decision": decision,
    "memory": memory,
    "first-token": first_token,
    "peers": peers,
    "training": training,
    "growth": growth,
    "replay": replaying,
    "released": released,
    "diversity": diversity,
}


def rows_of(group: str, *, quick: bool) -> list[Row]:
    """Run a group in a process of its own; where that fails, its one row says so."""
    command = [sys.executable, str(Path(__file__)), "--rows-of", group, *(["--quick"] if quick else [])]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return [Row(name=group, ours=f"failed: {reason}", met=False)]
    return [Row(**row) for row in json.loads(done.stdout.splitlines()[-1])]


def page_of(rows: Sequence[Row], *, arguments: Sequence[str], seconds: float) -> str:
    """Write the page: environment, command and table."""
    installed_versions = ", ".join(f"{name} {version(name)}" for name in VERSIONS)
    load = f", load {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else ""
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores{load}"
    lines = [
        "# Figures of speed and size",
        "",
        f"Written by `{' '.join([COMMAND, *arguments])}` in {seconds:.0f} s on {datetime.now(UTC):%Y-%m-%d}.",
        f"Python {platform.python_version()} on {machine}; {installed_versions}.",
        "",
        "Members are fake models, so that a figure is the package's own work. Times are medians: the processor's where nothing waits,",
        "the clock's for batches, first tokens and whole trainings. Both sides of a ratio took turns in one process; its interval holds",
        "95 % of the ratios of resampled pairs. An exponent b says that time grows as size^b.",
        "",
        "| what | ours | beside | ratio | to reach | reached |",
        "|---|---|---|---|---|---|",
    ]
    said = {True: "yes", False: "**no**", None: ""}
    lines += [
        f"| {row.name} | {row.ours} | {row.beside} | {row.ratio} | {row.reach} | {said[row.met]} |" for row in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the groups and write the page; the exit status is 1 if one of them failed to run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few repeats and small sizes: a check, no measurement")
    parser.add_argument("--only", action="append", choices=GROUPS, help="this group of rows; may be repeated")
    parser.add_argument("--out", type=Path, help=f"the page; for a run of everything {RESULTS.name}, else none")
    parser.add_argument("--rows-of", choices=GROUPS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.rows_of:
        rows = [asdict(row) for row in GROUPS[given.rows_of](quick=given.quick)]
        print(json.dumps(rows))
        return 0
    start, rows = time.perf_counter(), []
    for group in given.only or GROUPS:
        print(f"{time.perf_counter() - start:5.0f} s  {group}", file=sys.stderr, flush=True)
        rows += rows_of(group, quick=given.quick)
    page = page_of(rows, arguments=sys.argv[1:], seconds=time.perf_counter() - start)
    print(page)
    out = given.out or (None if given.quick or given.only else RESULTS)
    if out:
        out.write_text(page)
    return int(any(row.ours.startswith("failed") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
