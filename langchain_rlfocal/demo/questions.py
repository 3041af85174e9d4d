"""The question set of the demo, made from `facts.toml` by a seed.

Short questions of several kinds that very small language models sometimes get right, each with one right answer. The same
seed gives the same file, byte for byte: outcomes are recorded under the questions' texts.
"""

import json
import random
import tomllib
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from langchain_rlfocal.answers import KindName
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.outcomes import Question
from langchain_rlfocal.outcomes.files import written_whole

_Facts = dict[str, Any]
_Asked = Iterator[tuple[str, str, KindName]]
"""Queries with the right answer and its kind."""

_ONE_WORD = "Answer with one word."
_NUMBER = "Answer with a number."
_LETTER = "Answer with one letter."


def make_questions(*, seed: int = 0) -> list[Question]:
    """Make the question set.

    Args:
        seed: Decides which sums are asked, the order of options and things to compare, and the order of the file.

    Returns:
        The questions, task by task; no two share a query's text.
    """
    facts = tomllib.loads(Path(__file__).with_name("facts.toml").read_text(encoding="utf-8"))
    random_ = random.Random(seed)  # noqa: S311  # reproducible, not secret
    questions = []
    for task, ask in _TASKS.items():
        asked = list(ask(facts, random_))
        random_.shuffle(asked)
        questions += [
            Question(task=f"local/{task}", query_id=f"{task}-{number:03}", query=query, gold=gold, kind=kind)
            for number, (query, gold, kind) in enumerate(asked, start=1)
        ]
    return questions


def some_of(questions: list[Question], *, tasks: Sequence[str] | None, count: int | None) -> list[Question]:
    """Take the questions of some tasks, or so many of them, as evenly over their tasks as goes.

    Args:
        questions: Questions, task by task.
        tasks: Names of tasks, with or without what stands before the slash; None takes all.
        count: How many to take, the first of each task; None takes all.

    Raises:
        InputError: There is no such task, or there are fewer questions.
    """
    by_task: dict[str, list[Question]] = {}
    for question in questions:
        by_task.setdefault(question.task.rpartition("/")[2], []).append(question)
    wanted = list(dict.fromkeys(name.rpartition("/")[2] for name in tasks or by_task))
    if unknown := [name for name in wanted if name not in by_task]:
        raise InputError(f"`--task` must be one of {', '.join(by_task)}, got {', '.join(unknown)}.")
    in_turn = [one for turn in zip_longest(*(by_task[name] for name in wanted)) for one in turn if one is not None]
    if count is not None and count > len(in_turn):
        raise InputError(f"`--count` must be at most {len(in_turn)}, as many as there are of these tasks, got {count}.")
    kept = {question.query_id for question in in_turn[:count]}
    return [question for question in questions if question.query_id in kept]


def write_questions(path: Path, *, seed: int = 0, tasks: Sequence[str] | None = None, count: int | None = None) -> int:
    """Write the question set, or `some_of` it, as JSON lines, whole or not at all, and return the number of questions."""
    questions = some_of(make_questions(seed=seed), tasks=tasks, count=count)
    rows = (
        {"task": q.task, "query_id": q.query_id, "query": q.query, "gold": q.gold, "kind": q.kind} for q in questions
    )
    with written_whole(path) as sink:
        sink.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    return len(questions)


def _of_tables(kind: KindName = "short_text", **forms: str) -> Callable[[_Facts, random.Random], _Asked]:
    """Ask for the right side of each row of a table, in the form of a question about its left side."""

    def ask(facts: _Facts, _: random.Random) -> _Asked:
        for table, form in forms.items():
            for left, right in facts[table].items():
                yield form.format(left), right, kind

    return ask


def _yes_no(facts: _Facts, _: random.Random) -> _Asked:
    for question, things in facts["statements"].items():
        for gold in ("yes", "no"):
            for thing in things[gold]:
                yield f"{question.format(a=thing)} Answer yes or no.", gold, "short_text"
    for gold in ("yes", "no"):
        for question in facts["yes_no"][gold]:
            yield f"{question} Answer yes or no.", gold, "short_text"


def _countries(facts: _Facts, random_: random.Random) -> _Asked:
    for country, capital in random_.sample(list(facts["capitals"].items())[:70], 30):
        yield f"{capital} is the capital of which country? Answer with its name.", country, "short_text"


def _continents(facts: _Facts, random_: random.Random) -> _Asked:
    for continent, countries in facts["continents"].items():
        for country in countries:
            yield f"Is {country} in {_joined(facts['continents'], random_)}? {_ONE_WORD}", continent, "short_text"


def _arithmetic(_: _Facts, random_: random.Random) -> _Asked:
    pairs = [(a, b) for a in range(1, 10) for b in range(1, 10)]
    for a, b in random_.sample(pairs, 40):
        yield f"What is {a} + {b}? {_NUMBER}", str(a + b), "number"
    for a, b in random_.sample([(a, b) for a, b in pairs if a > b], 30):
        yield f"What is {a} - {b}? {_NUMBER}", str(a - b), "number"


def _comparison(facts: _Facts, random_: random.Random) -> _Asked:
    for rank in facts["ranks"]:
        things = rank["things"]
        pairs = [(low, high) for at, low in enumerate(things) for high in things[at + 1 :]]
        for low, high in random_.sample(pairs, min(12, len(pairs))):
            asked = random_.randrange(2)
            first, second = random_.sample((low, high), 2)
            query = f"Which is {rank['words'][asked]}, {first} or {second}? {_ONE_WORD}"
            yield query, (high, low)[asked], "short_text"
    for number in random_.sample(range(10, 50), 16):
        smaller, larger = str(number), str(number + random_.randrange(5, 50))
        first, second = random_.sample((smaller, larger), 2)
        word, gold = random_.choice((("larger", larger), ("smaller", smaller)))
        yield f"Which number is {word}, {first} or {second}? {_NUMBER}", gold, "number"


def _sentiment(facts: _Facts, random_: random.Random) -> _Asked:
    for gold, texts in facts["reviews"].items():
        for text in texts:
            yield f'Is this review {_joined(facts["reviews"], random_)}? "{text}" {_ONE_WORD}', gold, "short_text"


def _sequence(facts: _Facts, random_: random.Random) -> _Asked:
    for step in (1, 2, 3, 5, 10, -1, -2):
        for start in random_.sample(range(1, 20) if step > 0 else range(12, 30), 4):
            *shown, gold = (str(start + step * at) for at in range(5))
            yield f"What comes next: {', '.join(shown)}, ...? {_NUMBER}", gold, "number"
    for names, starts, form in (
        ("days", range(4), _ONE_WORD),
        ("months", range(0, 9, 2), _ONE_WORD),
        ("numerals", range(0, 7, 2), _ONE_WORD),
        ("letters", range(0, 20, 3), _LETTER),
    ):
        for start in starts:
            *shown, gold = facts[names][start : start + 4]
            yield f"What comes next: {', '.join(shown)}, ...? {form}", gold, "short_text"


def _category(facts: _Facts, random_: random.Random) -> _Asked:
    for kinds in facts["kinds"]:
        for kind, things in kinds.items():
            for thing in things:
                yield f"Is {thing} {_joined(kinds, random_)}? {_ONE_WORD}", kind.split()[1], "short_text"


def _choice(facts: _Facts, random_: random.Random) -> _Asked:
    for number, (question, right, *wrong) in enumerate(facts["choices"]):
        at = number % 3
        random_.shuffle(wrong)
        options = [*wrong[:at], right, *wrong[at:]]
        listed = "\n".join(f"{letter}) {option}" for letter, option in zip("ABC", options, strict=True))
        yield f"{question}\n{listed}\nAnswer with the letter A, B or C.", "ABC"[at], "option"


def _spelling(facts: _Facts, _: random.Random) -> _Asked:
    for word in facts["spelled"]:
        yield f'What is the first letter of the word "{word}"? {_LETTER}', word[0], "short_text"
    for word in facts["spelled"][:14]:
        yield f'What is the last letter of the word "{word}"? {_LETTER}', word[-1], "short_text"


def _joined(options: _Facts, random_: random.Random) -> str:
    """Join the names of options as a sentence does, in an order that the seed decides: `a, b or c`."""
    *head, last = random_.sample(list(options), len(options))
    return f"{', '.join(head)} or {last}"


_TASKS: dict[str, Callable[[_Facts, random.Random], _Asked]] = {
    "yes_no": _yes_no,
    "capitals": _of_tables(capitals="What is the capital of {}? Answer with the name of the city."),
    "countries": _countries,
    "continents": _continents,
    "arithmetic": _arithmetic,
    "comparison": _comparison,
    "sentiment": _sentiment,
    "sequence": _sequence,
    "opposites": _of_tables(opposites=f"What is the opposite of {{}}? {_ONE_WORD}"),
    "colors": _of_tables(colors=f"What color is {{}}? {_ONE_WORD}"),
    "counting": _of_tables("number", counts=f"How many {{}}? {_NUMBER}"),
    "animals": _of_tables(animals=f"{{}}? {_ONE_WORD}"),
    "category": _category,
    "choice": _choice,
    "spelling": _spelling,
    "grammar": _of_tables(
        plurals=f'What is the plural of "{{}}"? {_ONE_WORD}',
        past_tenses=f'What is the past tense of "{{}}"? {_ONE_WORD}',
    ),
}
