"""How well answers are judged to be the same: labelled pairs, recorded outcomes of real models, and how long it takes.

    python docs/benchmarks/same_answer.py [--pairs FILE] [--kinds] [--wrong] [--tables FOLDER [--rows 3000]] [--speed]

**Pairs.** Each line of `same_answer_pairs.jsonl` holds a question, two answers, and whether a sensible person would call them
the same answer to it. Both are labelled together, in both orders, with the kind left to "auto", which is what users get;
`--kinds` names the pair's kind instead. A false merge is one label for two different answers, a false split is two labels, or
none, for the same answer. A pair is wrong if it is so in either order.

**Tables.** FOLDER holds `mmlu_pro.parquet` and `zeroeval.parquet` with the columns of a table of outcomes. How often does our
verdict on a recorded response, against the right answer, equal the benchmark's own (a reward of 1)? Rows without a response
are left out, and no others; `--rows 0` takes them all. The kind is the one that the task has (option, number, short text),
beside it "auto"; the verdict is that of `score_answer`, beside it whether both texts get one label.

**Speed.** Median milliseconds to label 12 texts, with texts never seen before and with the same texts again, and which heavy
libraries the import of the chat model loads.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from langchain_rlfocal.answers import label_answers, score_answer

PAIRS = Path(__file__).with_name("same_answer_pairs.jsonl")
TASKS = {
    "mmlu_pro": ("mmlu_pro", "mmlu_pro/", "option"),
    "zeroeval gsm": ("zeroeval", "zeroeval/gsm", "number"),
    "zeroeval crux": ("zeroeval", "zeroeval/crux", "short_text"),
}
HEAVY = (
    "sympy",
    "math_verify",
    "latex2sympy2_extended",
    "babel",
    "pygments",
    "pint",
    "dateparser",
    "text_to_num",
)
TEXTS, REPEATS, Z = 12, 200, 1.959964
# Any kind by its name: which names there are is the package's business.
label: Callable[..., list[str | None]] = label_answers
score: Callable[..., float] = score_answer


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one question, and whether they are the same.

    Attributes:
        id: A name that no other pair has.
        kind: The kind of answer that the question asks for.
        lang: The question's language.
        query: What was asked.
        a: One answer.
        b: Another.
        same: Whether a sensible person would call them the same answer to this question.
        hard: Whether they differ though they look alike.
        why: What the pair tests.
    """

    id: str
    kind: str
    lang: str
    query: str
    a: str
    b: str
    same: bool
    hard: bool
    why: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the package said of a pair.

    Attributes:
        pair: The pair.
        labels: The labels of `a` and `b`, asked for in this order.
        merged: Whether they are one answer, asked for in this order and in the other.
    """

    pair: Pair
    labels: tuple[str | None, str | None]
    merged: tuple[bool, bool]

    @property
    def right(self) -> bool:
        """Whether both orders were judged rightly."""
        return self.merged == (self.pair.same, self.pair.same)


def read_pairs(path: Path) -> list[Pair]:
    """Read the pairs of a file, one JSON object a line."""
    with path.open(encoding="utf-8") as lines:
        pairs = [Pair(**json.loads(line)) for line in lines if line.strip()]
    twice = [name for name, count in Counter(pair.id for pair in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"Every pair needs an `id` of its own; used twice: {', '.join(twice)}.")
    return pairs


def merges(labels: Sequence[str | None]) -> bool:
    """Tell whether two labels say that their texts are one answer."""
    return labels[0] is not None and labels[0] == labels[1]


def judge(pair: Pair, *, named: bool) -> Verdict:
    """Ask for the labels of a pair, in both orders."""
    kind = pair.kind if named else "auto"
    there = label([pair.a, pair.b], kind, query=pair.query)
    back = label([pair.b, pair.a], kind, query=pair.query)
    return Verdict(pair, (there[0], there[1]), (merges(there), merges(back)))


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Compute the Wilson 95 % interval of a share.

        (p + z²/2n ± z √(p (1 − p) / n + z²/4n²)) / (1 + z²/n)

    Source: Wilson, 1927. https://doi.org/10.1080/01621459.1927.10502953
    """
    if trials == 0:
        return 0.0, 1.0
    share, extra = successes / trials, Z**2 / trials
    middle, half = share + extra / 2, Z * (share * (1 - share) / trials + extra / (4 * trials)) ** 0.5
    return max(0.0, (middle - half) / (1 + extra)), min(1.0, (middle + half) / (1 + extra))


def share_line(name: str, wrong: int, of: int) -> str:
    """Write a share in percent with its interval."""
    low, high = wilson(wrong, of)
    share = 100 * wrong / of if of else 0.0
    return f"{name:24}{wrong:5} of {of:4}  {share:6.2f} %  (95 %: {100 * low:.2f} to {100 * high:.2f})"


def report_groups(title: str, verdicts: Iterable[Verdict], key: Callable[[Pair], str]) -> None:
    """Print a row for each group: its pairs, those that differ, hard ones, false merges and false splits."""
    groups = defaultdict(list)
    for one in verdicts:
        groups[key(one.pair)].append(one)
    print(f"\n{title:12}{'pairs':>7}{'same':>7}{'differ':>8}{'hard':>7}{'false splits':>14}{'false merges':>14}")
    for name, members in groups.items():
        same = [one for one in members if one.pair.same]
        differ = [one for one in members if not one.pair.same]
        counts = (len(members), len(same), len(differ), sum(one.pair.hard for one in members))
        wrong = [sum(not one.right for one in part) for part in (same, differ)]
        print(f"{name:12}{counts[0]:7}{counts[1]:7}{counts[2]:8}{counts[3]:7}{wrong[0]:14}{wrong[1]:14}")


def report_pairs(path: Path, *, named: bool, wrong: bool) -> None:
    """Judge every pair of a file and print what went wrong."""
    verdicts = [judge(pair, named=named) for pair in read_pairs(path)]
    print(f"{len(verdicts)} pairs of {path.name}, kind {'named' if named else 'auto'}")
    report_groups("kind", verdicts, lambda pair: pair.kind)
    report_groups("language", verdicts, lambda pair: pair.lang)
    same = [one for one in verdicts if one.pair.same]
    differ = [one for one in verdicts if not one.pair.same]
    hard = [one for one in differ if one.pair.hard]
    print()
    print(share_line("false splits", sum(not one.right for one in same), len(same)))
    print(share_line("false merges", sum(not one.right for one in differ), len(differ)))
    print(share_line("  of hard pairs", sum(not one.right for one in hard), len(hard)))
    print(share_line("order matters", sum(len(set(one.merged)) > 1 for one in verdicts), len(verdicts)))
    if wrong:
        for one in verdicts:
            if not one.right:
                pair = one.pair
                print(f"\n{pair.id} ({pair.lang}): {'false split' if pair.same else 'false merge'}; {pair.why}")
                print(f"  query  {pair.query!r}\n  a      {pair.a!r}\n  b      {pair.b!r}")
                print(f"  labels {one.labels[0]!r}, {one.labels[1]!r}; one answer in each order: {one.merged}")


def sample(rows: Iterable[dict[str, Any]], size: int) -> list[dict[str, Any]]:
    """Take the rows whose ids have the smallest hashes: the same rows every time, all if `size` is 0."""

    def place(row: dict[str, Any]) -> bytes:
        ids = json.dumps([row["task"], row["query_id"], row["model"]])
        return hashlib.sha256(ids.encode()).digest()

    return sorted(rows, key=place)[: size or None]


def agreement(rows: Sequence[dict[str, Any]], verdict: Callable[[dict[str, Any]], bool]) -> str:
    """Write how often a verdict equals the recorded one, in percent with its interval."""
    right = sum(verdict(row) == (row["reward"] == 1) for row in rows)
    low, high = wilson(right, len(rows))
    return f"{100 * right / max(1, len(rows)):6.2f} ({100 * low:.2f} to {100 * high:.2f})"


def report_tables(folder: Path, size: int) -> None:
    """Print how often our verdicts on recorded responses equal the recorded rewards."""
    print(f"\n{'table':15}{'rows':>8}  {'kind':12}{'score_answer, %':>26}{'label_answers, %':>26}")
    columns = ["task", "query_id", "query", "model", "response", "gold", "reward"]
    for name, (file, tasks, kind) in TASKS.items():
        table = pq.read_table(folder / f"{file}.parquet", columns=columns).to_pylist()
        rows = sample((row for row in table if row["task"].startswith(tasks) and row["response"] is not None), size)
        for one in (kind, "auto"):

            def scored(row: dict[str, Any], kind: str = one) -> bool:
                return score(row["response"], row["gold"], kind, query=row["query"]) == 1

            def labelled(row: dict[str, Any], kind: str = one) -> bool:
                return merges(label([row["response"], row["gold"]], kind, query=row["query"]))

            figures = f"{agreement(rows, scored):>26}{agreement(rows, labelled):>26}"
            print(f"{name:15}{len(rows):8,}  {one:12}{figures}", flush=True)


def options(number: int) -> tuple[str, list[str]]:
    """Make 12 answers to a question with options."""
    query = f"Case {number}: which planet is the largest?\nA) Mars\nB) Venus\nC) Jupiter\nD) Saturn"
    letters = "CACBCCDCCABC"
    forms = (
        "{}",
        "({})",
        "The answer is {}.",
        "**{}**",
        f"Of all in case {number}, the largest one is {{}})",
        "Answer: {}",
    )
    return query, [forms[place % len(forms)].format(letter) for place, letter in enumerate(letters)]


def numbers(number: int) -> tuple[str, list[str]]:
    """Make 12 answers to a question about a number."""
    query = f"A farmer sells {number} eggs and then 1,000 more. How many eggs are that in total?"
    total = 1000 + number
    forms = ("{}", "{:,}", "The answer is {}.", "He sells **{:,}** eggs in total.", "{}.0", "#### {}")
    return query, [forms[place % len(forms)].format(total + place // len(forms)) for place in range(TEXTS)]


def short_texts(number: int) -> tuple[str, list[str]]:
    """Make 12 answers to a question about a name."""
    query = f"Which city is shown on page {number} of the atlas?"
    cities = ("Lisbon", "Porto", "Lisbon", "Faro")
    forms = ("{}", f"The city on page {number} of the atlas is {{}}.", "**{}**", "Answer: {}", "It is {}.")
    return query, [forms[place % len(forms)].format(cities[place % len(cities)]) for place in range(TEXTS)]


def formulas(number: int) -> tuple[str, list[str]]:
    """Make 12 answers to a question about a formula."""
    query = f"What is the derivative of $x^{number + 2}$?"
    forms = (
        "${n} x^{{{m}}}$",
        "\\boxed{{{n}x^{{{m}}}}}",
        "$\\frac{{{n}}}{{1}} x^{{{m}}}$",
        "$f'(x) = {n} \\cdot x^{{{m}}}$",
        "$-{n} x^{{{m}}}$",
        "\\[ x^{{{m}}} \\cdot {n} \\]",
    )
    powers = [number + 2 + place // len(forms) for place in range(TEXTS)]
    return query, [forms[place % len(forms)].format(n=power, m=power - 1) for place, power in enumerate(powers)]


def median_ms(make: Iterator[tuple[str, list[str]]]) -> float:
    """Median milliseconds to label each set of texts, after two that do not count."""
    taken = []
    for query, texts in make:
        start = time.perf_counter()
        label(texts, query=query)
        taken.append(time.perf_counter() - start)
    counted = sorted(taken[2:])
    return 1000 * counted[len(counted) // 2]


def report_speed() -> None:
    """Print how long labels and the import take, and what the import loads."""
    print(f"\n{TEXTS} texts, kind auto, median of {REPEATS}{'new, ms':>12}{'again, ms':>12}")
    for name, make in {
        "options": options,
        "numbers": numbers,
        "short texts": short_texts,
        "LaTeX": formulas,
    }.items():
        new = median_ms(make(number) for number in range(REPEATS + 2))
        again = median_ms(make(7) for _ in range(REPEATS + 2))
        print(f"{name:33}{new:12.2f}{again:12.2f}")
    program = (
        "import json, sys, time; start = time.perf_counter(); from langchain_rlfocal import RLFocalChatModel; "
        f"print(json.dumps([time.perf_counter() - start, [name for name in {HEAVY!r} if name in sys.modules]]))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout  # noqa: S603 - our own program
    seconds, loaded = json.loads(said)
    print(
        f"import RLFocalChatModel from langchain_rlfocal: {seconds:.2f} s; of {', '.join(HEAVY)} it loads {', '.join(loaded) or 'none'}"
    )


def main() -> None:
    """Judge the pairs, then what else was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, default=PAIRS)
    parser.add_argument("--kinds", action="store_true", help="name each pair's kind instead of leaving it to auto")
    parser.add_argument("--wrong", action="store_true", help="list the pairs that were judged wrongly")
    parser.add_argument("--tables", type=Path, help="folder of recorded outcomes")
    parser.add_argument("--rows", type=int, default=3000, help="rows of each table; 0 takes all")
    parser.add_argument("--speed", action="store_true", help="measure time")
    given = parser.parse_args()
    report_pairs(given.pairs, named=given.kinds, wrong=given.wrong)
    if given.tables:
        report_tables(given.tables, given.rows)
    if given.speed:
        report_speed()


if __name__ == "__main__":
    main()
