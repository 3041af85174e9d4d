"""The demo command: questions of several kinds, answered by the embedded models before your eyes.

For each question it shows whom the Decider picked and how sure it was, what every member said, what Fusion made of it, and,
asked separately, what the single best member says alone. All of it is in `response_metadata`, which any caller gets.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from langchain_rlfocal.answers import score_answer
from langchain_rlfocal.chat_models import RLFocalChatModel
from langchain_rlfocal.demo import POLICY_PATH, embedded_pool
from langchain_rlfocal.errors import EnsembleError
from langchain_rlfocal.outcomes import Question
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.pool import ModelPool
from langchain_rlfocal.redaction import printable

_ASKED = (
    ("yes or no", "Is a whale a mammal? Answer yes or no.", "yes"),
    ("capital", "What is the capital of Portugal? Answer with the name of the city.", "Lisbon"),
    ("sum", "What is 6 + 3? Answer with a number.", "9"),
    ("comparison", "Which is heavier, an apple or a bus? Answer with one word.", "a bus"),
    (
        "sentiment",
        'Is this review positive or negative? "The doctor was patient and helped me a lot." Answer with one word.',
        "positive",
    ),
    ("sequence", "What comes next: July, August, September, ...? Answer with one word.", "October"),
    (
        "multiple choice",
        "Which of these is a day of the week?\nA) Winter\nB) April\nC) Tuesday\nAnswer with the letter A, B or C.",
        "C",
    ),
    ("open", "Describe the sea in one short sentence.", None),
)

QUESTIONS = tuple(
    Question(task=task, query_id=str(number), query=query, gold=gold)
    for number, (task, query, gold) in enumerate(_ASKED, start=1)
)
"""The built-in questions. None is among those that the shipped policy was trained on."""

_MAX_TEXT_CHARS, _MAX_LABEL_CHARS, _MAX_NAME_CHARS = 60, 12, 24
_INDENT = len("Single best  ")


@dataclass(frozen=True, slots=True)
class Shown:
    """What came of one question.

    Attributes:
        question: The question.
        text: The ensemble's answer.
        facts: `response_metadata["rlfocal"]` of that answer.
        seconds: From asking the ensemble to its answer.
        alone: What the single best member said, or why it did not: a row of `candidates` or `failures`.
    """

    question: Question
    text: str
    facts: Mapping[str, Any]
    seconds: float
    alone: Mapping[str, Any]

    @property
    def is_right(self) -> bool | None:
        """Whether the ensemble is right, None where there is no right answer."""
        return self._judge(self.text)

    @property
    def alone_is_right(self) -> bool | None:
        """Whether the single best member is right, None where there is no right answer."""
        return self._judge(self.alone.get("text"))

    @property
    def calls(self) -> int:
        """Calls that the ensemble made."""
        return len(self.facts["candidates"]) + len(self.facts["failures"])

    def as_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return {
            "task": self.question.task,
            "question": self.question.query,
            "gold": self.question.gold,
            "answer": self.text,
            "is_right": self.is_right,
            "seconds": self.seconds,
            "decision": self.facts,
            "single_best": {**self.alone, "is_right": self.alone_is_right},
        }

    def _judge(self, text: str | None) -> bool | None:
        if self.question.gold is None:
            return None
        return score_answer(text, self.question.gold, self.question.kind, query=self.question.query) >= 0.5


def run_demo(console: Console, queries: Sequence[str] | None = None) -> list[Shown]:
    """Answer questions with the embedded pool and the policy that ships.

    Args:
        console: Where to show it.
        queries: Questions to ask; None asks the built-in ones.

    Returns:
        What came of each question.

    Raises:
        MissingDependencyError: A part of the embedded pool is not installed.
        CheckpointError: The shipped policy cannot be read.
        EnsembleError: No member answered.
    """
    questions: Sequence[Question] = QUESTIONS
    if queries:
        questions = [Question(task="question", query_id=str(n), query=q) for n, q in enumerate(queries, start=1)]
    policy = RLFocalPolicy.load(POLICY_PATH)
    console.print("Starting two small language models inside this process: SmolLM2 135M and Gemma 3 270M.")
    started = time.perf_counter()
    with console.status("The first time, Gemma is merged from its packages …"):
        embedded = embedded_pool()
    with embedded:
        pool = ModelPool.from_models(embedded.members)
        limits = {name: policy.card["config"][name] for name in ("max_team", "max_rounds", "cost_weight")}
        model = RLFocalChatModel(members=pool, policy=policy, **limits)
        console.print(
            f"{len(pool)} members ready in {time.perf_counter() - started:.1f} s. For each question, policy "
            f"{policy.policy_id} picks 1 to {model.max_team} of them in at most {model.max_rounds} rounds; "
            "`sure` is the probability that it gives to picking a member."
        )
        return play(console, model, single_best=policy.card["validation"]["single_best"], questions=questions)


def play(console: Console, model: RLFocalChatModel, *, single_best: str, questions: Sequence[Question]) -> list[Shown]:
    """Ask each question, show what came of it, and sum up at the end.

    Args:
        console: Where to show it.
        model: The ensemble.
        single_best: The member whose answer is set beside the ensemble's.
        questions: What to ask.
    """
    results = []
    for number, question in enumerate(questions, start=1):
        with console.status(f"Asking question {number} of {len(questions)} …"):
            started = time.perf_counter()
            message = model.invoke(question.query)
            seconds = time.perf_counter() - started
            alone = _ask_alone(model, single_best, question)
        shown = Shown(question, message.text, message.response_metadata["rlfocal"], seconds, alone)
        console.print(answer_view(shown, title=f"{number} of {len(questions)}: {question.task}"))
        results.append(shown)
    console.print(summary_view(results))
    return results


def _ask_alone(model: RLFocalChatModel, member: str, question: Question) -> Mapping[str, Any]:
    started = time.perf_counter()
    try:
        row: Mapping[str, Any] = model.invoke(question.query, model=member).response_metadata["rlfocal"]["candidates"][
            0
        ]
    except EnsembleError as error:
        seconds = time.perf_counter() - started
        return {"member": member, "reason": error.failures.get(member, str(error)), "latency_s": seconds}
    return row


def answer_view(shown: Shown, *, title: str) -> RenderableType:
    """Show one question: the picks, the candidates, the fused answer, and the single best member alone."""
    alone = shown.alone
    alone_text = _short(alone["text"] if "text" in alone else f"failed: {alone['reason']}")
    return Group(
        Text(),
        Rule(Text(title, style="bold"), align="left", style="cyan"),
        Text(shown.question.query, style="bold cyan"),
        Text(),
        _candidates_table(shown.facts),
        *_left_out(shown.facts),
        Text(),
        Text.assemble(("Ensemble     ", "bold"), (_short(shown.text), "bold"), "  ", _verdict(shown.is_right)),
        _note(f"{_decision(shown.facts)}; {_num_calls(shown.facts)}, {shown.seconds:.2f} s"),
        Text.assemble("Single best  ", alone_text, "  ", _verdict(shown.alone_is_right)),
        _note(f"{alone['member']}, {alone['latency_s']:.2f} s; asked separately, not in the ensemble's cost"),
    )


def decision_view(facts: Mapping[str, Any], *, seconds: float, usd: float | None) -> RenderableType:
    """Show how one answer came about: the picks, the candidates, and what Fusion made of them.

    Args:
        facts: `response_metadata["rlfocal"]` of the answer.
        seconds: From asking to the answer.
        usd: Dollars that it cost, None where that is unknown.
    """
    cost = "price unknown" if usd is None else f"{usd:.6f} usd"
    left_out = {**facts["excluded"], **facts["left_out"]}
    return Group(
        _candidates_table(facts),
        *_left_out(facts),
        *(_note(f"left out: {name}: {_short(reason)}") for name, reason in left_out.items()),
        _note(f"{_decision(facts)}; {_num_calls(facts)}, {seconds:.2f} s, {cost}"),
    )


def _decision(facts: Mapping[str, Any]) -> str:
    """Say whose answer Fusion follows, and how much weight each distinct answer has."""
    fusion = facts["fusion"]
    author = "the synthesizer" if fusion["synthesized"] else fusion["member"] or "an option nobody put first"
    weights = sorted(fusion["weights"].items(), key=lambda item: -(item[1] or 0.0))
    votes = ", ".join(
        f"{_short(label, _MAX_LABEL_CHARS) or 'nothing'} {weight or 0.0:.2f}" for label, weight in weights
    )
    return printable(f"{author}; weights {votes}")


def _num_calls(facts: Mapping[str, Any]) -> str:
    calls = len(facts["candidates"]) + len(facts["failures"])
    return f"{calls} call{'s' if calls != 1 else ''}"


def summary_view(results: Sequence[Shown]) -> RenderableType:
    """Show right answers, calls and seconds of the ensemble and of the single best member."""
    table = Table(title="Total", title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for heading in ("", "right", "calls", "seconds"):
        table.add_column(heading, justify="right" if heading else "left")
    names = ", ".join(sorted({shown.alone["member"] for shown in results}))
    table.add_row(
        "ensemble",
        _share([shown.is_right for shown in results]),
        str(sum(shown.calls for shown in results)),
        f"{sum(shown.seconds for shown in results):.1f}",
        style="bold",
    )
    table.add_row(
        Text(f"single best ({names})"),
        _share([shown.alone_is_right for shown in results]),
        str(len(results)),
        f"{sum(shown.alone['latency_s'] for shown in results):.1f}",
    )
    note = (
        "Times are not comparable: a member's first answer includes reading its prompt, later ones do not, and the single best "
        "member is asked last and alone."
    )
    return Group(Text(), Rule(style="cyan"), table, Text(), Text(note, style="dim"))


def _candidates_table(facts: Mapping[str, Any]) -> Table:
    """Show each picked member with the Decider's probability and what it said, round by round."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    table.add_column("round", justify="right", no_wrap=True)
    table.add_column("picked", overflow="fold", max_width=_MAX_NAME_CHARS)
    table.add_column("sure", justify="right", no_wrap=True)
    table.add_column("said", overflow="fold", ratio=1)
    table.add_column("counts as", no_wrap=True)
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    results = {row["member"]: row for row in (*facts["candidates"], *facts["failures"])}
    for round_ in facts["rounds"]:
        for index, member in enumerate(round_["asked"]):
            table.add_row(
                "" if index else str(round_["round"]),
                Text(printable(member), style="green" if member == facts["fusion"]["member"] else ""),
                _decimal(round_["probabilities"].get(member)),
                *_cells(results[member]),
                _decimal(results[member]["latency_s"]),
            )
    return table


def _left_out(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Name the members that the Decider could have picked, round by round, the likeliest first."""
    for round_ in facts["rounds"]:
        left = [(name, p) for name, p in round_["probabilities"].items() if name not in round_["asked"]]
        if left:
            left.sort(key=lambda item: -(item[1] or 0.0))
            names = ", ".join(f"{name} {_decimal(p)}" for name, p in left)
            yield _note(f"not picked in round {round_['round']}: {names}")


def _cells(result: Mapping[str, Any]) -> tuple[Text, Text, Text]:
    """Show what a member said, what it counts as, and its tokens."""
    if "kind" in result:
        return Text(f"failed: {_short(result['kind'])}: {_short(result['reason'])}", style="red"), Text(), Text()
    label = "nothing" if result["answer"] is None else _short(result["answer"], _MAX_LABEL_CHARS)
    counts = (result["prompt_tokens"], result["completion_tokens"])
    tokens = "+".join("?" if count is None else str(count) for count in counts)
    return Text(_short(result["text"])), Text(label), Text(tokens)


def _share(verdicts: Sequence[bool | None]) -> str:
    judged = [verdict for verdict in verdicts if verdict is not None]
    return f"{sum(judged)} of {len(judged)}" if judged else "unknown"


def _verdict(is_right: bool | None) -> tuple[str, str]:
    if is_right is None:
        return "", ""
    return ("right", "green") if is_right else ("wrong", "red")


def _note(text: str) -> Padding:
    return Padding(Text(text, style="dim"), (0, 0, 0, _INDENT))


def _decimal(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}"


def _short(text: str, limit: int = _MAX_TEXT_CHARS) -> str:
    """Put a member's text on one line, cut between words, without anything that could steer the reader's terminal."""
    line = " ".join(printable(text).split())
    if len(line) <= limit:
        return line
    kept = line[: limit - 1]
    if line[limit - 1] != " ":
        kept = kept.rpartition(" ")[0] or kept  # a word that is longer than all there is room for is cut
    return f"{kept.rstrip()}…"
