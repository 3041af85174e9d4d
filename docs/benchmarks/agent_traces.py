"""What agents' conversations cost and score when their model is chosen anew at each step, and when it is not.

    python docs/benchmarks/agent_traces.py                       both pools and shapes, ten seeds; half an hour
    python docs/benchmarks/agent_traces.py --pool scripted --shape chat --seeds 3

A trace is a conversation of some turns. In each the user asks something of another kind, and the agent works on it for some steps:
at each the model calls a tool, whose result is a page more to read. An `agent` has 6 turns of 4 steps, a `chat` 24 turns of one.
Members are doubles that bill as providers with a prompt
cache do: they read what they have read within five minutes at a tenth of the price, in whole messages, from 1024 tokens on. Between
steps some seconds pass, between turns a minute on average, and now and then an hour, in which every cache is lost.

`scripted`: three members at three prices. At each step there is one right option of four; a member picks it with a probability that
depends on the member and the kind of question, drawn once for each member and step, so that all modes meet the same members. The
policy is trained on other questions of the same kinds. Score: the share of steps that were right.

`embedded`: the six members of the embedded pool at one price, who differ in what they are good at. Questions and answers are
those that were recorded of them (`langchain_rlfocal/demo/outcomes.parquet`, of which the policy that ships has not seen the rows
used here): at the end of each tool loop a member says what it said then. Score: the recorded one of the answer that was returned.

Printed for each mode: dollars for a turn, score, share of the prompts' tokens that came from a cache, calls for each step, and, of
dollars and score, the mean difference from `off, no session` over seeds with its 95 % interval (Student's t). `at random` is another
member at each step, whatever is asked.
"""

import argparse
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import product
from statistics import mean, stdev
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from langchain_rlfocal import PoolMember, RLFocalChatModel, RLFocalPolicy
from langchain_rlfocal.demo import POLICY_PATH
from langchain_rlfocal.outcomes import Outcome, OutcomeTable, split_of
from langchain_rlfocal.records import Query
from langchain_rlfocal.testing import CachingChatModel
from langchain_rlfocal.training import TrainingConfig, train

SHAPES = {"agent": (6, 4), "chat": (24, 1)}
"""Turns of a conversation, and steps of each."""

STEP_S, TURN_S, PAUSE_S, PAUSES = 8.0, 60.0, 3600.0, 0.1
"""Seconds of a step; mean seconds between turns; seconds of a pause; and its probability."""

SYSTEM_WORDS, PAGE_WORDS = 1500, 300
AT_RANDOM = "at random"
T_95 = {3: 4.303, 5: 2.776, 10: 2.262, 20: 2.093}

KINDS = ("lookup", "arithmetic", "policy", "code")
SKILLS = {
    "small": dict(zip(KINDS, (0.96, 0.70, 0.60, 0.40), strict=True)),
    "medium": dict(zip(KINDS, (0.97, 0.90, 0.80, 0.70), strict=True)),
    "large": dict(zip(KINDS, (0.98, 0.96, 0.92, 0.94), strict=True)),
}
PRICES = {"small": (0.1, 0.01, 0.4), "medium": (0.4, 0.04, 1.6), "large": (2.0, 0.2, 8.0)}
"""Dollars per million tokens: input, cached input, output."""


def drawn(*what: object) -> float:
    """Draw from [0, 1), the same for the same."""
    return int.from_bytes(blake2b(repr(what).encode(), digest_size=8).digest()) / 2**64


def words(num: int, *what: object) -> str:
    """Write a page that is the same for the same."""
    generator = random.Random(repr(what))  # noqa: S311  # no secret
    return " ".join(
        generator.choice(("account", "order", "page", "rule", "value", "entry", "note")) for _ in range(num)
    )


class Clock:
    """Seconds, as the replay says."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def pick(option: str) -> str:
    """Pick an option and read on."""
    return option


@dataclass(frozen=True)
class Turn:
    """A turn of a trace: what is asked, of which kind, and what scores an answer's messages in [0, 1]."""

    text: str
    task: str
    score: Callable[[Sequence[AIMessage]], float]


Said = Callable[[str, Sequence[BaseMessage]], AIMessage]
"""What a member says, by its name and the conversation."""


@dataclass(frozen=True)
class World:
    """Members, a policy for them, and the traces of a seed."""

    prices: Mapping[str, tuple[float, float, float]]
    said: Said
    policy: RLFocalPolicy
    traces: Callable[[int], list[list[Turn]]]
    steps: int

    def model(self, clock: Clock, **fields: Any) -> RLFocalChatModel:
        """Make a model whose members' caches are empty."""
        members = []
        for name, (read, cached, written) in self.prices.items():
            double = CachingChatModel(script=partial(self.said, name), model_name=name, clock=clock)
            prices = {"input_usd_per_mtok": read, "cached_input_usd_per_mtok": cached, "output_usd_per_mtok": written}
            members.append(PoolMember(name, double, **prices))
        return RLFocalChatModel(members=members, policy=self.policy, clock=clock, max_retries=0, **fields)


# ---- scripted members


def options_right(name: str, text: str, step: int) -> bool:
    """Tell whether a member picks the right option of a step."""
    kind = text.partition(":")[0]
    return drawn(name, text, step) < SKILLS[name][kind]


def gold_of(text: str, step: int) -> str:
    """Return the right option of a step."""
    return "ABCD"[int(4 * drawn("gold", text, step))]


def scripted_reply(name: str, messages: Sequence[BaseMessage]) -> AIMessage:
    """Pick the option of the next step."""
    start = max(at for at, message in enumerate(messages) if isinstance(message, HumanMessage))
    text, step = str(messages[start].text), sum(isinstance(m, ToolMessage) for m in messages[start:])
    gold = gold_of(text, step)
    wrong = [option for option in "ABCD" if option != gold]
    option = gold if options_right(name, text, step) else wrong[int(3 * drawn("wrong", name, text, step))]
    return AIMessage("", tool_calls=[{"name": "pick", "args": {"option": option}, "id": f"{name}-{step}"}])


def scripted_turn(seed: int, trace: int, turn: int) -> Turn:
    """Ask something of a kind."""
    kind = KINDS[int(len(KINDS) * drawn("kind", seed, trace, turn))]
    text = f"{kind}: case {seed}-{trace}-{turn}. {words(30, seed, trace, turn)}"

    def score(said: Sequence[AIMessage]) -> float:
        picked = [[call["args"].get("option") for call in message.tool_calls] for message in said]
        return mean(options == [gold_of(text, step)] for step, options in enumerate(picked))

    return Turn(text, kind, score)


def scripted_world(num_traces: int, turns: int, steps: int) -> World:
    """Train a policy on other questions of the kinds; a call costs there what a step costs on average with nothing cached."""
    tokens_in, tokens_out = 5000, 20
    outcomes = []
    for number in range(1200):
        kind = KINDS[number % 4]
        text = f"{kind}: case train-{number}. {words(30, 'train', number)}"
        gold = gold_of(text, 0)
        for name, (read, _, written) in PRICES.items():
            [call] = scripted_reply(name, [HumanMessage(text)]).tool_calls
            option = call["args"]["option"]
            outcomes.append(
                Outcome(
                    task=kind, query_id=str(number), query=text, model=name, response=option, answer=option, gold=gold,
                    reward=float(option == gold), cost_usd=(tokens_in * read + tokens_out * written) / 1e6,
                )
            )  # fmt: skip
    learned, chosen, _ = OutcomeTable.from_outcomes(outcomes).grid([*PRICES]).split()
    policy = train(learned, chosen, TrainingConfig(seed=0))

    def traces(seed: int) -> list[list[Turn]]:
        return [[scripted_turn(seed, trace, turn) for turn in range(turns)] for trace in range(num_traces)]

    return World(PRICES, scripted_reply, policy, traces, steps)


# ---- recorded members


def embedded_world(num_traces: int, turns: int, steps: int) -> World:
    """Replay what the embedded models said to questions that the policy has not seen, at one price for all."""
    policy = RLFocalPolicy.load(POLICY_PATH)
    recorded: dict[str, dict[str, Outcome]] = {}
    for outcome in OutcomeTable.read(POLICY_PATH.parent / "outcomes.parquet"):
        recorded.setdefault(outcome.query, {})[outcome.model] = outcome
    unseen = [text for text, said in recorded.items() if split_of(text) == "test" and len(said) == len(policy.members)]
    questions = sorted(unseen)

    def said(name: str, messages: Sequence[BaseMessage]) -> AIMessage:
        start = max(at for at, message in enumerate(messages) if isinstance(message, HumanMessage))
        step = sum(isinstance(message, ToolMessage) for message in messages[start:])
        if step < steps - 1:
            return AIMessage(
                "", tool_calls=[{"name": "pick", "args": {"option": f"page {step}"}, "id": f"{name}-{step}"}]
            )
        return AIMessage(recorded[str(messages[start].text)][name].response)

    def turn(text: str) -> Turn:
        def score(said: Sequence[AIMessage]) -> float:
            member = said[-1].response_metadata["rlfocal"]["fusion"]["member"]
            return recorded[text][member].reward or 0.0

        return Turn(text, next(iter(recorded[text].values())).task, score)

    def traces(seed: int) -> list[list[Turn]]:
        generator = random.Random(seed)  # noqa: S311  # as above
        return [[turn(text) for text in generator.sample(questions, turns)] for _ in range(num_traces)]

    return World(dict.fromkeys(policy.members, (0.1, 0.01, 0.4)), said, policy, traces, steps)


# ---- replaying


@dataclass
class Taken:
    """What replaying took: dollars and score for a turn, cached and all tokens of prompts, calls and steps."""

    usd: float = 0.0
    score: float = 0.0
    cached: int = 0
    prompt: int = 0
    calls: int = 0
    steps: int = 0
    turns: int = 0


def replay(world: World, seed: int, *, mode: str, has_session: bool, options: Mapping[str, Any]) -> Taken:
    """Play the traces of a seed, one after the other."""
    clock = Clock()
    model = world.model(clock)
    agent, taken = model.bind_tools([pick]), Taken()
    for number, trace in enumerate(world.traces(seed)):
        # Each has instructions of its own, as another customer's has: nothing is cached from one to the next.
        history: list[BaseMessage] = [SystemMessage(f"Agent {seed}-{number}. {words(SYSTEM_WORDS, seed, number)}")]
        generator, chooser = (random.Random(f"{seed}/{number}/{of}") for of in "tm")  # noqa: S311  # as above
        for turn in trace:
            is_pause = generator.random() < PAUSES
            clock.now_s += PAUSE_S if is_pause else generator.expovariate(1 / TURN_S)
            history.append(HumanMessage(turn.text))
            said = []
            for step in range(world.steps):
                given = {**options, "session": f"{seed}/{number}"} if has_session else {**options}
                if mode == AT_RANDOM:
                    given["model"] = chooser.choice([*world.prices])
                message = agent.invoke(history, task=turn.task, **given)
                said.append(message)
                history.append(message)
                for call in message.tool_calls:
                    page = words(PAGE_WORDS, turn.text, step)
                    history.append(ToolMessage(page, tool_call_id=call["id"]))
                clock.now_s += STEP_S
                facts = message.response_metadata["rlfocal"]
                usages = [usage for usage in facts["usage"].values() if usage is not None]
                taken.prompt += sum(usage["input_tokens"] for usage in usages)
                taken.cached += sum(usage["input_token_details"]["cache_read"] for usage in usages)
                taken.calls += facts["spent"]["calls"]
                taken.usd += facts["spent"]["usd"]
                taken.steps += 1
            taken.score += turn.score(said)
            taken.turns += 1
    assert math.isclose(taken.usd, model.spent.usd), "what was billed is what the ledger has"
    return taken


def modes_of(world: World) -> dict[str, tuple[bool, dict[str, Any]]]:
    """Name the modes: whether there is a session, and the options of a call."""
    tasks: dict[str, list[str]] = {}
    for outcome in world.traces(-1):
        for turn in outcome:
            tasks.setdefault(turn.task, []).append(turn.text)
    # By what the policy learned of them, over the kinds that are asked.
    texts = [(text, task) for task, asked in tasks.items() for text in asked]
    expected = {name: mean(world.policy.competence(Query(t, k))[name] for t, k in texts) for name in world.prices}
    best = max(expected, key=lambda name: expected[name])
    cheapest = min(world.prices, key=lambda name: (world.prices[name][0], -expected[name]))
    alone = {f"single best ({best})": (True, {"model": best})}
    if world.prices[cheapest] != world.prices[best]:
        alone[f"cheapest ({cheapest})"] = (True, {"model": cheapest})
    return {
        "off, no session": (False, {}),
        AT_RANDOM: (False, {}),
        "off": (True, {"sticky": "off"}),
        "tools": (True, {"sticky": "tools"}),
        "session": (True, {"sticky": "session"}),
        **alone,
    }


def interval(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean."""
    return T_95[len(values)] * stdev(values) / math.sqrt(len(values))


def main() -> None:
    """Replay and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pool", choices=("scripted", "embedded"), action="append")
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--seeds", type=int, choices=T_95, default=10)
    parser.add_argument("--traces", type=int, default=5, help="conversations of each seed")
    parser.add_argument("--cost-weight", type=float, action="append", help="0.1 where none is given")
    args = parser.parse_args()
    for name, shape in product(args.pool or ("scripted", "embedded"), args.shape or SHAPES):
        alone: dict[str, list[Taken]] = {}  # what no cost weight changes
        world = {"scripted": scripted_world, "embedded": embedded_world}[name](args.traces, *SHAPES[shape])
        for weight in args.cost_weight or (0.1, 0.3):
            print(f"\n{name}, {shape}, cost weight {weight:g}: {args.seeds} seeds of {args.traces} conversations\n")
            print("| mode | $ for 1000 turns | score | cached | calls a step | $ saved | score gained |")
            print("|---|---|---|---|---|---|---|")
            base: list[Taken] = []
            for mode, (has_session, options) in modes_of(world).items():
                is_alone = mode == AT_RANDOM or "model" in options
                given = options if is_alone else {**options, "cost_weight": weight}
                play = partial(replay, world, mode=mode, has_session=has_session, options=given)
                all_taken = alone.get(mode) or [play(seed) for seed in range(args.seeds)]
                if is_alone:
                    alone[mode] = all_taken
                base = base or all_taken
                usd = [1000 * one.usd / one.turns for one in all_taken]
                score = [100 * one.score / one.turns for one in all_taken]
                saved = [100 * (1 - one.usd / other.usd) for one, other in zip(all_taken, base, strict=True)]
                gained = [a - 100 * b.score / b.turns for a, b in zip(score, base, strict=True)]
                cached = sum(one.cached for one in all_taken) / sum(one.prompt for one in all_taken)
                calls = sum(one.calls for one in all_taken) / sum(one.steps for one in all_taken)
                differences = " | " if all_taken is base else (
                    f"{mean(saved):.1f} % ± {interval(saved):.1f} | {mean(gained):+.2f} ± {interval(gained):.2f}"
                )  # fmt: skip
                print(
                    f"| {mode} | {mean(usd):.2f} ± {interval(usd):.2f} | {mean(score):.1f} ± {interval(score):.1f} | "
                    f"{100 * cached:.0f} % | {calls:.2f} | {differences} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
