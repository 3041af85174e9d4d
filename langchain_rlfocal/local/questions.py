"""Questions: the question set of the embedded pool, made from tables by a seed.

Short questions of several kinds that very small language models sometimes get right, each with one right answer. The same
seed gives the same file, byte for byte. Nothing here asks a model anything, and no question's name or place in the file
tells its answer.
"""

import json
import os
import random
from collections.abc import Callable, Iterable
from pathlib import Path

from langchain_rlfocal.answers import KindName
from langchain_rlfocal.local import facts, reviews
from langchain_rlfocal.local.parts import QUESTIONS_PATH
from langchain_rlfocal.outcomes import Question

_Asked = tuple[str, str, KindName]
"""Query, right answer, kind of answer."""

_ONE_WORD = "Answer with one word."
_NUMBER = "Answer with a number."


def make_questions(*, seed: int = 0) -> list[Question]:
    """Make the question set.

    Args:
        seed: Decides which sums are asked, the order of options and things to compare, and the order of the file.

    Returns:
        The questions, task by task; no two share a query's text.
    """
    random_ = random.Random(seed)  # noqa: S311  # reproducible, not secret
    questions = []
    for task, ask in _TASKS.items():
        asked = list(ask(random_))
        random_.shuffle(asked)
        questions += [
            Question(task=f"local/{task}", query_id=f"{task}-{number:03}", query=query, gold=gold, kind=kind)
            for number, (query, gold, kind) in enumerate(asked, start=1)
        ]
    return questions


def write_questions(path: Path = QUESTIONS_PATH, *, seed: int = 0) -> int:
    """Write the question set as JSON lines, whole or not at all.

    Args:
        path: The file to write or replace.
        seed: As in `make_questions`.

    Returns:
        The number of questions.
    """
    questions = make_questions(seed=seed)
    rows = (
        {"task": q.task, "query_id": q.query_id, "query": q.query, "gold": q.gold, "kind": q.kind} for q in questions
    )
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(text.encode())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return len(questions)


def _yes_no(random_: random.Random) -> Iterable[_Asked]:
    del random_
    for question, (yes, no) in facts.STATEMENTS.items():
        for things, gold in ((yes, "yes"), (no, "no")):
            for thing in things:
                yield f"{question.format(a=thing)} Answer yes or no.", gold, "short_text"
    for questions, gold in ((facts.YES, "yes"), (facts.NO, "no")):
        for question in questions:
            yield f"{question}? Answer yes or no.", gold, "short_text"


def _capitals(random_: random.Random) -> Iterable[_Asked]:
    del random_
    for country, capital in facts.CAPITALS:
        yield f"What is the capital of {country}? Answer with the name of the city.", capital, "short_text"


def _countries(random_: random.Random) -> Iterable[_Asked]:
    for country, capital in random_.sample(facts.CAPITALS[:70], 30):
        yield f"{capital} is the capital of which country? Answer with its name.", country, "short_text"


def _continents(random_: random.Random) -> Iterable[_Asked]:
    for continent, countries in facts.COUNTRIES_BY_CONTINENT.items():
        for country in countries:
            options = _joined(list(facts.COUNTRIES_BY_CONTINENT), random_)
            yield f"Is {country} in {options}? {_ONE_WORD}", continent, "short_text"


def _arithmetic(random_: random.Random) -> Iterable[_Asked]:
    digits = range(1, 10)
    sums = [(a, b) for a in digits for b in digits]
    differences = [(a, b) for a in digits for b in digits if a > b]
    for a, b in random_.sample(sums, 40):
        yield f"What is {a} + {b}? {_NUMBER}", str(a + b), "number"
    for a, b in random_.sample(differences, 30):
        yield f"What is {a} - {b}? {_NUMBER}", str(a - b), "number"


def _comparison(random_: random.Random) -> Iterable[_Asked]:
    for words, things in facts.RANKS.items():
        pairs = [(low, high) for at, low in enumerate(things) for high in things[at + 1 :]]
        for low, high in random_.sample(pairs, min(12, len(pairs))):
            asked = random_.randrange(2)
            first, second = random_.sample((low, high), 2)
            yield f"Which is {words[asked]}, {first} or {second}? {_ONE_WORD}", (high, low)[asked], "short_text"
    for number in random_.sample(range(10, 50), 16):
        smaller, larger = str(number), str(number + random_.randrange(5, 50))
        first, second = random_.sample((smaller, larger), 2)
        word, gold = random_.choice((("larger", larger), ("smaller", smaller)))
        yield f"Which number is {word}, {first} or {second}? {_NUMBER}", gold, "number"


def _sentiment(random_: random.Random) -> Iterable[_Asked]:
    for texts, gold in ((reviews.POSITIVE, "positive"), (reviews.NEGATIVE, "negative")):
        for text in texts:
            options = _joined(["positive", "negative"], random_)
            yield f'Is this review {options}? "{text}" {_ONE_WORD}', gold, "short_text"


def _sequence(random_: random.Random) -> Iterable[_Asked]:
    steps = (1, 2, 3, 5, 10, -1, -2)
    for step in steps:
        for start in random_.sample(range(1, 20), 4) if step > 0 else random_.sample(range(12, 30), 4):
            numbers = [str(start + step * at) for at in range(5)]
            yield f"What comes next: {', '.join(numbers[:4])}, ...? {_NUMBER}", numbers[4], "number"
    for names, starts in ((facts.DAYS, range(4)), (facts.MONTHS, range(0, 9, 2)), (facts.NUMERALS, range(0, 7, 2))):
        for start in starts:
            *shown, gold = names[start : start + 4]
            yield f"What comes next: {', '.join(shown)}, ...? {_ONE_WORD}", gold, "short_text"
    for start in range(0, 20, 3):
        *shown, gold = facts.LETTERS[start : start + 4]
        yield f"What comes next: {', '.join(shown)}, ...? Answer with one letter.", gold, "short_text"


def _opposites(random_: random.Random) -> Iterable[_Asked]:
    del random_
    for word, opposite in facts.OPPOSITES:
        yield f"What is the opposite of {word}? {_ONE_WORD}", opposite, "short_text"


def _colors(random_: random.Random) -> Iterable[_Asked]:
    del random_
    for thing, color in facts.COLORS:
        yield f"What color is {thing}? {_ONE_WORD}", color, "short_text"


def _counting(random_: random.Random) -> Iterable[_Asked]:
    del random_
    for things, count in facts.COUNTS:
        yield f"How many {things}? {_NUMBER}", count, "number"


def _animals(random_: random.Random) -> Iterable[_Asked]:
    del random_
    for question, answer in facts.ANIMALS:
        yield f"{question}? {_ONE_WORD}", answer, "short_text"


def _category(random_: random.Random) -> Iterable[_Asked]:
    for kinds in facts.KINDS:
        for kind, things in kinds.items():
            for thing in things:
                yield f"Is {thing} {_joined(list(kinds), random_)}? {_ONE_WORD}", kind.split()[1], "short_text"


def _choice(random_: random.Random) -> Iterable[_Asked]:
    for at, (question, right, *wrong) in enumerate(reviews.CHOICES):
        random_.shuffle(wrong)
        options = [*wrong[: at % 3], right, *wrong[at % 3 :]]
        listed = "\n".join(f"{letter}) {option}" for letter, option in zip("ABC", options, strict=True))
        yield f"{question}\n{listed}\nAnswer with the letter A, B or C.", "ABC"[at % 3], "option"


def _spelling(random_: random.Random) -> Iterable[_Asked]:
    del random_
    for word in facts.SPELLED:
        yield f'What is the first letter of the word "{word}"? Answer with one letter.', word[0], "short_text"
    for word in facts.SPELLED[:14]:
        yield f'What is the last letter of the word "{word}"? Answer with one letter.', word[-1], "short_text"


def _grammar(random_: random.Random) -> Iterable[_Asked]:
    del random_
    for word, plural in facts.PLURALS:
        yield f'What is the plural of "{word}"? {_ONE_WORD}', plural, "short_text"
    for word, past in facts.PAST_TENSES:
        yield f'What is the past tense of "{word}"? {_ONE_WORD}', past, "short_text"


def _joined(options: list[str], random_: random.Random) -> str:
    """Join `options` as a sentence does, in an order of the seed's choice: `a, b or c`."""
    *head, last = random_.sample(options, len(options))
    return f"{', '.join(head)} or {last}"


_TASKS: dict[str, Callable[[random.Random], Iterable[_Asked]]] = {
    "yes_no": _yes_no,
    "capitals": _capitals,
    "countries": _countries,
    "continents": _continents,
    "arithmetic": _arithmetic,
    "comparison": _comparison,
    "sentiment": _sentiment,
    "sequence": _sequence,
    "opposites": _opposites,
    "colors": _colors,
    "counting": _counting,
    "animals": _animals,
    "category": _category,
    "choice": _choice,
    "spelling": _spelling,
    "grammar": _grammar,
}

if __name__ == "__main__":
    write_questions()
