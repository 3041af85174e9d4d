"""Statements: what a text says, as words and facts in order, set against what the query said already.

"He was 35 when he died in 1791", asked how old he was when he died in 1791, says 35 and repeats 1791. Two statements
are the same where they say the same and neither contradicts what the other repeats. Paraphrases in other words differ:
whether they mean the same is for a judge to say, and `may_be_same` tells which pairs a judge can be asked about.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import NamedTuple

from langchain_rlfocal.answers import values
from langchain_rlfocal.answers.dates import find_facts, plain_numbers
from langchain_rlfocal.answers.quantities import Fact
from langchain_rlfocal.answers.reading import (
    MAX_SENTENCE,
    Ask,
    apart,
    bare,
    concluding_clause,
    conclusion,
    explained,
    final_part,
    first_sentence,
    joined_apart,
    marked,
    plain,
    read_query,
    readable,
    stem,
    uncontracted,
    unheaded,
    unlabelled,
    without_ending,
)
from langchain_rlfocal.answers.values import NEGATIONS, PATTERNS, WORDS

_MAX_NAMED = 400
_MAX_STATEMENT = 20_000  # characters; the words of a longer text are compared as they are
_PAUSES = frozenset(".,:;!?)")

_MAX_BARE = 30
_NEAR = 3
_LONG_FOR = WORDS.inverted("long_for")
_SHORT_FOR = re.compile(rf"\b({'|'.join(_LONG_FOR)})\.\s?(?=[0-9])", re.IGNORECASE)

_ABOVE, _BELOW, _UP, _DOWN = ">", "<", "up", "down"
_SIGNS = {word: word if sign == "itself" else sign for word, sign in WORDS.inverted("signs").items()}
# asked for each word
_FILLERS, _TIMES, _MAY_LEAD = WORDS["fillers"], WORDS["times"], WORDS["may_lead"] | _SIGNS.keys()


@dataclass(frozen=True, slots=True)
class Amount:
    """A fact as a part of a statement.

    Attributes:
        kind: Kind of the fact.
        value: Its value.
        label: How it is written.
        stated: The bare number in it, if there is just one: 90 in "90 minutes"; of a range both.
        sign: What a comparison before it makes of it: `">"` in "more than 5".
    """

    kind: str
    value: object
    label: str
    stated: Fraction | tuple[Fraction, ...] | None
    sign: str = ""

    @property
    def is_ordinal(self) -> bool:
        """Whether it is "3rd", not "3"."""
        return self.kind == "number" and self.label.endswith(".")

    @property
    def number(self) -> Fraction | None:
        """The number that a bare number is."""
        return self.stated if self.kind == "number" and isinstance(self.stated, Fraction) else None

    @property
    def is_duration(self) -> bool:
        """Whether it is a quantity of time."""
        return self.label.endswith((" s", " month"))

    def agrees(self, other: "Amount") -> bool:
        """Tell whether both are the same: equal, or one a bare number and the other that number of something."""
        if self.sign != other.sign:
            return False
        if (self.kind, self.value) == (other.kind, other.value):
            return True
        if self.kind == other.kind == "range":
            return self.stated == other.stated is not None and "" in {self.base, other.base}
        bare_one, whole = (self, other) if self.kind == "number" and not self.is_ordinal else (other, self)
        units = {"quantity", "money", "percent", "time"}
        if whole.is_ordinal and bare_one.kind == "number":
            return bare_one.stated == whole.stated
        if bare_one.kind != "number" or whole.kind not in units or bare_one.stated is None or whole.stated is None:
            return False
        return bare_one.stated == whole.stated or (whole.kind == "percent" and bare_one.stated * 100 == whole.stated)

    @property
    def is_date(self) -> bool:
        """Whether it is a date, a time, or a number that may be a year."""
        is_year = self.number is not None and self.number.denominator == 1 and 100 <= self.number < 2200
        return self.kind in {"date", "time"} or is_year

    @property
    def base(self) -> object:
        """The unit of a range."""
        return self.value[0] if isinstance(self.value, tuple) else None

    def __str__(self) -> str:
        return f"{self.sign}{self.label}"


Part = str | Amount


@dataclass(frozen=True)
class Statement:
    """What a text says.

    Attributes:
        said: Words and facts that the query does not hold, in order.
        repeated: Those that it holds, in order.
        full: All of both, in order.
        names: Where only the facts count: names around them, which must not contradict another's.
        order: Of what is repeated, in order, what must not be in another order in another text: all of it where the
            text says something of how it belongs together ("beat", "before"), else the names.
        owners: Which word of the query each of several facts belongs to, as in "10 goals, 5 assists"; sorted, or empty.
        things: What bare numbers count that the query does not name, as in "12 boxes".
    """

    said: tuple[Part, ...]
    repeated: tuple[Part, ...]
    full: tuple[Part, ...]
    names: frozenset[str] = frozenset()
    order: tuple[Part, ...] = field(default=(), compare=False)
    owners: tuple[tuple[str, Amount], ...] = ()
    things: tuple[tuple[Amount, str], ...] = ()

    @cached_property
    def content(self) -> tuple[Part, ...]:
        """What is compared first: what is said, or all where everything repeats the query."""
        return self.said or self.full

    @cached_property
    def facts(self) -> tuple[Amount, ...]:
        """The facts of `full`."""
        return tuple(part for part in self.full if isinstance(part, Amount))

    @cached_property
    def negations(self) -> int:
        """How many words of denial it holds."""
        return sum(part in NEGATIONS for part in self.full if isinstance(part, str))

    def __str__(self) -> str:
        return " ".join(map(str, self.content))


def read_statement(text: str, ask: Ask, *, facts_only: bool = False) -> Statement | None:
    """Read what a cleaned text says in answer to a query.

    Args:
        text: The part of the text that answers.
        ask: What was asked.
        facts_only: Let only facts count, and the words that change their meaning, such as "not" and "more than".

    Returns:
        The statement; None where it says nothing, or no fact where only facts count.
    """
    if ask.foreign:
        text = PATTERNS.ends_unspaced.sub("", text)
    if ask.identifier:
        text = PATTERNS.name_in_pieces.sub(
            lambda name: name[0] if word_of(name[1]) in ask.words else re.sub("[ -]", "", name[0]), text
        )
    if "." in text:
        text = _SHORT_FOR.sub(lambda short: _LONG_FOR[short[1].casefold()] + " ", text)
    if ask.share:
        text = PATTERNS.one_in.sub(r"\1 out of ", text)
    parts = list(_parts(text, ask, binds=facts_only))
    full = tuple(one.part for one in parts)
    said = tuple(one.part for one in parts if one.is_new)
    repeated = tuple(one.part for one in parts if not one.is_new)
    relates = any(one.is_new and not one.is_capital for one in parts)
    order = tuple(one.part for one in parts if not one.is_new and (relates or one.is_capital))
    if not full:
        bare_text = "".join(text.split())
        bare_text = bare(bare_text) or bare_text
        return Statement((bare_text,), (), (bare_text,)) if bare_text and not facts_only else None
    if not facts_only and not said:
        # "The past tense of walk is walked": another form of the query's own word is the answer.
        said = tuple(part for part in full if isinstance(part, str) and part not in ask.words)
        repeated = tuple(part for part in full if part not in said) if said else repeated
    if not facts_only:
        return Statement(said, repeated, full, order=order)
    if not any(isinstance(part, Amount) for part in full):
        return None
    names = frozenset(one.part for one in parts if one.is_new and one.is_name and isinstance(one.part, str))
    if not any(isinstance(part, Amount) and (part.is_duration or not ask.duration) for part in said):
        # what answers is what the query named
        said, repeated = full, ()
    said = _near_facts(said, full)
    said, extra = _set_apart(said, parts, ask)
    repeated = (*repeated, *extra)
    asked = {_SIGNS[word] for word in ask.words if word in _SIGNS}
    counted = tuple(dict.fromkeys(part for part in _only_counting(said) if part not in asked))
    repeated = tuple(part for part in repeated if isinstance(part, Amount))
    owners, things = _owners(parts), _things(parts, is_foreign=ask.foreign)
    return Statement(counted, repeated, (*counted, *repeated), names, owners=owners, things=things)


def bare_number(part: str, ask: Ask) -> Statement | None:
    """Read a text that is nothing but a number in its most usual spelling, as `read_statement` would."""
    if len(part) > _MAX_BARE:
        return None
    match = PATTERNS.bare_number.fullmatch(part.strip(" *_`.") if part[:1] != "." else part)
    if match is None or (ask.foreign and not match[0].isdigit()) or (match[1] and not ask.number):
        return None
    number = Fraction(match[0].replace(",", ""))
    amount = Amount("number", number, values.number_text_of(number), number)
    return Statement((amount,), (), (amount,))


def _owners(parts: Sequence["_Said"]) -> tuple[tuple[str, Amount], ...]:
    """Tell which word of the query each new fact belongs to, where words and facts take turns; else nothing."""
    turns: list[Amount | list[str]] = []
    for part, is_new, *_ in parts:
        if isinstance(part, Amount):
            if is_new:
                turns.append(part)
        elif not is_new:
            if turns and isinstance(turns[-1], list):
                turns[-1].append(stem(part))
            else:
                turns.append([stem(part)])
    leads = bool(turns) and isinstance(turns[0], list)
    words = [turn[-1 if leads else 0] for turn in turns if isinstance(turn, list)]
    amounts = [turn for turn in turns if isinstance(turn, Amount)]
    alternates = all(isinstance(turn, list) == (at % 2 != leads) for at, turn in enumerate(turns))
    if len(amounts) < 2 or len(words) != len(amounts) or len(set(words)) < len(words) or not alternates:
        return ()
    return tuple(sorted(zip(words, amounts, strict=True), key=lambda pair: pair[0]))


def _things(parts: Sequence["_Said"], *, is_foreign: bool) -> tuple[tuple[Amount, str], ...]:
    """Tell what each bare number counts: the word right behind it, in small letters where nouns have no capitals."""
    found: dict[Amount, str] = {}
    for one, other in pairwise(parts):
        amount, thing = one.part, other.part
        if not (one.leads and isinstance(amount, Amount) and amount.number is not None and isinstance(thing, str)):
            continue
        stands = (is_foreign or not other.is_capital) and thing.isalpha() and thing not in _SIGNS
        if stands and not amount.is_ordinal and thing not in WORDS["no_things"] and thing not in NEGATIONS:
            found.setdefault(amount, stem(thing))
    return tuple(found.items())


def _counts_others(a: Statement, b: Statement) -> bool:
    """Whether a number of one counts something else than the same number of the other, or has a unit there."""
    others = dict(b.things)
    for amount, thing in a.things:
        if others.get(amount, thing) != thing:
            return True
        if any(fact != amount and fact.agrees(amount) for fact in b.facts):
            return True
    return False


def _near_facts(said: tuple[Part, ...], full: tuple[Part, ...]) -> tuple[Part, ...]:
    near: set[Part] = set()
    for at, part in enumerate(full):
        if isinstance(part, Amount):
            near.update(other for other in full[max(0, at - _NEAR) : at + _NEAR + 1] if isinstance(other, str))
    return tuple(part for part in said if isinstance(part, Amount) or part in near or part in NEGATIONS)


def _set_apart(said: tuple[Part, ...], parts: Sequence["_Said"], ask: Ask) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Set the one fact that the query asks for apart from others: "8 planets, since 2006", asked how many planets.

    The others still must not contradict those of another statement.
    """
    amounts = list(dict.fromkeys(part for part in said if isinstance(part, Amount)))
    counted = PATTERNS.asks_counted.search(ask.text.casefold())
    fits: list[Amount] = []
    if counted:
        noun, order = stem(word_of(counted[1])), [one.part for one in parts]
        near = [(one, order[at + 1 : at + 3]) for at, one in enumerate(order) if isinstance(one, Amount)]
        behind = [one for one, after in near if any(isinstance(word, str) and stem(word) == noun for word in after)]
        fits = [one for one in dict.fromkeys(behind) if one in amounts]
    elif ask.duration:
        fits = [one for one in amounts if one.kind == "quantity" and one.is_duration]
    elif PATTERNS.asks_money.search(ask.text.casefold()):
        fits = [one for one in amounts if one.kind == "money"]
    elif PATTERNS.asks_year.search(ask.text.casefold()):
        fits = [one for one in amounts if one.number is not None and 1000 <= one.number < 2200]
    if not fits and counted and amounts and amounts[0].number is not None:
        fits = [one for one in amounts if one.kind == "number" and not 1900 <= (one.number or 0) < 2100]
    if len(fits) != 1 or len(amounts) < 2:
        return said, ()
    others = tuple(part for part in amounts if part != fits[0])
    return tuple(part for part in said if part not in others), others


def same_statement(a: Statement, b: Statement) -> bool:
    """Tell whether two statements are the same; symmetric."""
    if a == b:
        return True
    if _counts_others(a, b) or _counts_others(b, a):
        return False
    if a.owners and [word for word, _ in a.owners] == [word for word, _ in b.owners]:
        own, others = ([amount for _, amount in one.owners] for one in (a, b))
        return _alike(own, others) and a.negations == b.negations
    if not _alike(a.content, b.content):
        return False
    if bool(a.said) != bool(b.said):
        return True
    names_agree = a.names <= b.names or b.names <= a.names
    return names_agree and (not a.said or _agrees_on(a, b) or _agrees_on(b, a))


def may_be_same(a: Statement, b: Statement) -> bool:
    """Tell whether two different statements may still mean the same: no fact, and no denial, tells them apart."""
    return a.negations == b.negations and sorted(map(str, a.facts)) == sorted(map(str, b.facts))


def _alike(a: Sequence[Part], b: Sequence[Part]) -> bool:
    return len(a) == len(b) and all(map(_same_part, a, b))


def _same_part(a: Part, b: Part) -> bool:
    if isinstance(a, Amount) and isinstance(b, Amount):
        return a.agrees(b)
    return a == b


def _within(few: Sequence[Part], many: Sequence[Part]) -> bool:
    rest = iter(many)
    return all(any(_same_part(part, other) for other in rest) for part in few)


def _agrees_on(few: Statement, many: Statement) -> bool:
    """Whether all that one text repeats of the query is in the other too, and nothing in another order that counts."""
    words = {part for part in many.repeated if isinstance(part, str)}
    if not all(part in words for part in few.repeated if isinstance(part, str)):
        return False
    if not few.order:
        return _within([part for part in few.repeated if isinstance(part, Amount)], many.repeated)
    return _within(few.order, many.repeated)


def _only_counting(parts: Sequence[Part]) -> Iterator[Part]:
    for part in parts:
        if isinstance(part, Amount):
            yield part
        elif part in NEGATIONS:
            yield "not"
        elif part in {_UP, _DOWN} or _SIGNS.get(part) in {_UP, _DOWN}:
            yield _SIGNS.get(part, part)
        elif part in _SIGNS and _SIGNS[part] == part:
            yield part


class _Said(NamedTuple):
    """A part of a text; whether the query does not hold it, it is a name, has a capital or is a fact, a word follows directly."""

    part: Part
    is_new: bool
    is_name: bool
    is_capital: bool
    leads: bool = False


def _parts(text: str, ask: Ask, *, binds: bool) -> Iterator[_Said]:
    """Yield each part of a text.

    With `binds` a name and the number right after it are one part, a name: "Apollo 11".
    """
    tokens = _tokens(text, ask)
    folded = [token if isinstance(token, Fact) else word_of(token) for token in tokens]
    starts = True  # of a sentence, where a capital is no sign of a name
    before: list[str] = []
    for at, token in enumerate(tokens):
        if isinstance(token, Fact):
            name = tokens[at - 1] if at else None
            month = PATTERNS.month_of_year.fullmatch(token.label) if token.kind == "date" else None
            if binds and isinstance(name, str) and _is_named(token, text) and _names(name, token, ask, first=at == 1):
                bound = f"{word_of(name)} {token.label}"  # "Apollo 11" is a name
                yield _Said(bound, bound not in _bound_names(ask), True, True)
            elif month and Fraction(month[1]) in ask.numbers:  # "March 2024", asked for a month of 2024
                for word in _words(text[token.start : token.end]):
                    if not word[:1].isdigit():
                        yield _Said(word_of(word), True, False, True)
            else:
                amount = amount_of(token, text, ask, sign=_sign_before(before))
                leads = text[token.end : token.end + 1] == " " and text[token.end + 1 : token.end + 2].isalpha()
                yield _Said(amount, not _is_repeated(amount, ask), False, True, leads)
            starts, before = False, []
            continue
        part = word_of(token)
        after = folded[at + 1] if at + 1 < len(folded) else None
        is_capital = token.lstrip("\"'(*_")[:1].isupper()
        is_name = token[:1].isupper() and not starts
        starts = token.rstrip("\"')*_").endswith((".", "!", "?", ":"))
        if not part or (part in _TIMES and at and isinstance(after, Fact) and isinstance(folded[at - 1], Fact)):
            continue  # "20 x 30 cm"
        if ask.foreign:
            part = without_ending(part)
        before = [] if token[-1] in _PAUSES else [*before[-2:], part]
        if part == "but" and before[-2:-1] == ["all"]:
            part = "except"
        if part in NEGATIONS and not (part == "no" and ask.portuguese):
            yield _Said(part, True, False, False)
            continue
        is_filler = part in _FILLERS or (ask.foreign and part in WORDS["fillers_elsewhere"])
        if (is_filler and not _is_letter(token, at, tokens)) or (ask.foreign and part == "no"):
            continue
        if (part in _MAY_LEAD or after in WORDS["by"]) and _is_dropped(part, at, folded, tokens, after):
            continue
        if binds and isinstance(after, Fact) and _is_named(after, text) and _names(token, after, ask, first=at == 0):
            continue
        following = tokens[at + 1] if at + 1 < len(tokens) else None
        leads = isinstance(following, str) and following[:1].isupper()
        says_nothing = (
            (part in WORDS["prepositions"] and all(ask.repeats(_neighbour(folded, at, step)) for step in (-1, 1)))
            or (part in WORDS["titles"] and leads and not token.isupper())
            or (part in WORDS["companies"] and at > 0)
            or PATTERNS.short_name.fullmatch(token)
        )
        for word in [_cased(token, part)] if ask.cased and not ask.repeats(part) else apart(part):
            yield _Said(word, not (says_nothing or ask.repeats(word)), is_name, is_capital)


def _is_letter(token: str, at: int, tokens: Sequence[str | Fact]) -> bool:
    if token.strip(".,;:!?\"'()*_`") not in {"A", "I"} or at == 0:
        return False
    after = tokens[at + 1] if at + 1 < len(tokens) else None
    return not token[-1].isalnum() or not isinstance(after, str) or not after[:1].islower()


def _cased(token: str, part: str) -> str:
    """Keep the case of a word where it tells things apart, as in "Co" and "CO", but for that of its first letter."""
    written = bare(token)
    return written[:1].lower() + written[1:] if written.casefold() == part else part


def _is_dropped(
    part: str, at: int, folded: Sequence[str | Fact], tokens: Sequence[str | Fact], after: str | Fact | None
) -> bool:
    """Whether a word only leads to what counts: "about" and "on" before facts, "in" and "by" before names."""
    if isinstance(after, Fact):
        if part in WORDS["between_facts"] and at > 0 and isinstance(folded[at - 1], Fact):
            return True
        if part in WORDS["approximate"] or part in {"than", "to"} or part in WORDS["of_time"]:
            return True
        return part in _SIGNS and _SIGNS[part] in {_ABOVE, _BELOW, ">=", "<="} and bool(_sign_before([part]))
    if part == "than" or (part in {"more", "less", "greater", "fewer", "at"} and after in {"than", "least", "most"}):
        return isinstance(_next_fact(folded, at), Fact)
    if part in {"least", "most"} and at and folded[at - 1] == "at":
        return True
    following = tokens[at + 1] if at + 1 < len(tokens) else ""
    if part in WORDS["before_names"] and isinstance(following, str) and following[:1].isupper():
        return True
    is_passive = after in WORDS["by"] and at > 0 and folded[at - 1] in WORDS["be"]
    return is_passive and (bool(PATTERNS.participle.fullmatch(part)) or after != "by")


def _neighbour(folded: Sequence[str | Fact], at: int, step: int) -> str | Fact | None:
    """Return the next part in one direction that is no filler."""
    at += step
    while 0 <= at < len(folded) and folded[at] in WORDS["fillers"]:
        at += step
    return folded[at] if 0 <= at < len(folded) else None


def _next_fact(folded: Sequence[str | Fact], at: int) -> str | Fact | None:
    return next((part for part in folded[at + 1 : at + 3] if isinstance(part, Fact)), None)


def _sign_before(before: Sequence[str]) -> str:
    """What the words right before a fact make of it: "more than", "at least"."""
    near = [word for word in before[-3:] if word not in WORDS["approximate"]]
    while near and near[-1] in {"than", "a", "the", "of", "to"}:
        near.pop()
    sign = _SIGNS.get(near[-1], "") if near else ""
    return sign if sign in {_ABOVE, _BELOW, ">=", "<="} else ""


def amount_of(fact: Fact, text: str, ask: Ask, *, sign: str = "") -> Amount:
    """Make a part of a fact; a part of a whole that the query names is the part alone."""
    stated, written = fact.stated, text[fact.start : fact.end]
    if fact.kind == "time":
        hour = re.match(r"\s?([0-9]{1,2})(?![0-9:.h]*[1-9])", written)
        stated = Fraction(hour[1]) if hour else None
    if fact.kind == "number":
        stated = fact.value if isinstance(fact.value, Fraction) else stated
        if isinstance(fact.value, tuple) and fact.value[0] == "ordinal":
            stated = Fraction(fact.value[1])
        slash = re.fullmatch(r"\s?([0-9]{1,9})\s?/\s?([0-9]{1,9})\s?", written)
        if slash and ask.rates and Fraction(slash[2]) in ask.numbers:
            return Amount("number", Fraction(slash[1]), slash[1], Fraction(slash[1]), sign)
    value = fact.value
    if ask.share and (share := _share(fact)) is not None:
        return _number(share, sign)
    if ask.ratio and fact.kind == "range" and isinstance(value, tuple) and not value[0] and " to " in written:
        return Amount("ratio", ("ratio", *value[1:]), ":".join(map(str, value[1:])), None, sign)
    if fact.kind == "range":
        return Amount("range", value, fact.label, tuple(plain_numbers(written)), sign)
    if fact.kind == "date" and (year := PATTERNS.year_alone.fullmatch(fact.label)):
        return _number(Fraction(year[0]), sign)
    if fact.kind == "ratio" and isinstance(value, tuple) and len(value) == 3 and value[0] == "of":
        _, part, whole = value
        if isinstance(part, (int, Fraction)) and Fraction(whole) in ask.numbers:
            return _number(Fraction(part), sign)
    return Amount(fact.kind, value, fact.label, stated, sign)


def _number(number: Fraction, sign: str) -> Amount:
    return Amount("number", _as_number_value(number), values.number_text_of(number), number, sign)


def _share(fact: Fact) -> Fraction | None:
    value = fact.value
    if fact.kind == "ratio" and isinstance(value, tuple) and value[0] == "of" and value[2]:
        return Fraction(value[1]) / Fraction(value[2])
    return None


@lru_cache(maxsize=1024)
def _as_number_value(number: Fraction) -> object:
    """The value that `find_quantities` gives a number, so that both compare."""
    found = [fact for fact in find_facts(values.number_text_of(number)) if fact.kind == "number"]
    return found[0].value if found else number


def _is_repeated(amount: Amount, ask: Ask) -> bool:
    if amount.sign:
        return False
    named = (amount.kind, amount.value) in ask.facts
    if amount.kind == "number":
        return named or (not amount.is_ordinal and amount.stated in ask.numbers)
    return named and (amount.stated is None or amount.stated in ask.numbers)  # "48 hours" does not repeat "2 days"


def _is_named(fact: Fact, text: str) -> bool:
    return fact.kind == "number" and fact.start > 1 and text[fact.start - 1] == " " and text[fact.start - 2].isalnum()


def _names(token: str, fact: Fact, ask: Ask, *, first: bool) -> bool:
    """Whether a word before a number makes a name of both, as in "Apollo 11": a capital, no filler, no currency."""
    word = word_of(token)
    says_nothing = word in WORDS["fillers"] or word in WORDS["of_time"] or word in _SIGNS
    if says_nothing or not token[:1].isupper() or not token[-1:].isalnum():
        return False
    if ask.repeats(word) and f"{word} {fact.label}" not in _bound_names(ask):
        return False
    return not first or word not in WORDS["common_starts"]


@lru_cache(maxsize=64)
def _bound_names(ask: Ask) -> frozenset[str]:
    pairs = pairwise(_tokens(ask.text, ask))
    return frozenset(
        f"{word_of(name)} {fact.label}"
        for name, fact in pairs
        if isinstance(name, str) and isinstance(fact, Fact) and name[:1].isupper()
    )


def _tokens(text: str, ask: Ask) -> list[str | Fact]:
    tokens: list[str | Fact] = []
    end = 0
    for fact in find_facts(text, query=ask.text, day_first=ask.foreign):
        tokens += _words(text[end : fact.start])
        tokens.append(fact)
        end = fact.end
        if ask.foreign and text[end : end + 1] == "'":  # "1789'da"
            end += len(PATTERNS.suffix.match(text[end:])[0])  # type: ignore[index]  # it matches nothing too
    return tokens + _words(text[end:])


def _words(text: str) -> list[str]:
    return joined_apart(uncontracted(text)).split()


@lru_cache(maxsize=8192)
def word_of(token: str) -> str:
    """Fold a word and strip what is around it; a flag of a command, such as "-A", stays."""
    if PATTERNS.flag.match(token):
        return token.rstrip("`.,;:)\"'")
    return bare(values.fold(token[:1000]))


# ---- which part of a text is read


def answering_part(text: str, ask: Ask, *, whole: bool = False) -> tuple[str, bool]:
    """Find the part of a cleaned text that answers.

    Args:
        text: The text.
        ask: What was asked.
        whole: Take all of a text without marks, not its first sentence.

    Returns:
        The part; and whether the text marks it as the answer.
    """
    text = final_part(text)
    parts = marked(text)
    if parts:
        return unlabelled(parts[0], ask), True
    part = unlabelled(unheaded(text), ask)
    return (part, False) if whole else (_first_answer(part, ask), False)


def read_short(text: str, ask: Ask) -> Statement | None:
    """Read a short answer: its first sentence without explanations, or all of it where the query asks several things."""
    part, is_marked = answering_part(text, ask)
    if is_marked and not ask.several:
        part = explained(first_sentence(part))
    quoted = PATTERNS.says_quoted.fullmatch(part)
    if quoted and all(word in WORDS["leads"] or ask.repeats(word) for word in plain(values.fold(quoted[1])).split()):
        part = quoted[2]
    part = readable(part, ask)
    return read_statement(part, ask) or (read_statement(readable(final_part(text), ask), ask) if is_marked else None)


def read_long(text: str) -> Statement | None:
    """Read all that a text says, but headings and marks."""
    part, _ = answering_part(text, _NOTHING_ASKED, whole=True)
    if len(part) > _MAX_STATEMENT:
        words = tuple(values.fold(part).split())
        return Statement(words, (), words) if words else None
    return read_statement(part, _NOTHING_ASKED)


def read_amounts(text: str, ask: Ask) -> Statement | None:
    """Read the facts that a text answers: those it marks, or concludes with; else all that the query does not hold.

    Args:
        text: A cleaned text.
        ask: What was asked.
    """
    part, is_marked = answering_part(text, ask, whole=True)
    if is_marked:
        part = _marked_amount(part)
    elif ask.several:
        pass
    elif concluded := conclusion(part, ask):
        part = concluded
    value = PATTERNS.named_value.fullmatch(part.strip())
    part = value[1] if value else part
    if ask.duration:
        part = as_duration(part)
    part = PATTERNS.attached.sub(" = ", explained(readable(part, ask)))
    part = _results(part)
    statement = read_statement(part[: 50 * MAX_SENTENCE], ask, facts_only=True)
    if statement is None and is_marked:
        rest = _results(readable(unheaded(final_part(text)), ask))
        statement = read_statement(rest[: 50 * MAX_SENTENCE], ask, facts_only=True)
    if statement is not None and not ask.several and len(statement.facts) > 1 and (clause := concluding_clause(part)):
        statement = _concluded(statement, read_statement(clause, ask, facts_only=True))
    return statement


def _concluded(whole: Statement, end: Statement | None) -> Statement:
    """Let only what a statement concludes with answer; its other facts must not contradict another's."""
    if end is None:
        return whole
    others = tuple(part for part in whole.said if isinstance(part, Amount) and part not in end.said)
    repeated = (*others, *end.repeated)
    return Statement(end.said, repeated, (*end.said, *repeated), end.names)


def named_value(part: str, ask: Ask) -> str | None:
    """Return the value that a text gives what the query asks for, as in "x = 5", "log(100) = 2", "The slope is 2".

    None where it gives none, or several.
    """
    part = part.strip()
    if ask.several or len(part) > _MAX_NAMED:
        return None
    match = PATTERNS.named_value.fullmatch(part) if ask.number else None
    if match:
        return _undollared(match[1])
    match = PATTERNS.set_equal.fullmatch(part)
    if match and ":" not in match[2] and len(name := _squeezed(match[1])) > 1 and name in _squeezed(ask.text):
        return _undollared(match[2])
    match = PATTERNS.copula.fullmatch(part)
    if (
        match
        and not PATTERNS.links.search(match[2])
        and (lead := plain(values.fold(match[1])).split())
        and all(ask.repeats(word) for word in lead)
    ):
        first = word_of(match[2].split()[0])
        return None if first in NEGATIONS else _undollared(match[2])
    return None


def _undollared(value: str) -> str:
    return value.strip().rstrip(".").removesuffix("$") if value.count("$") % 2 else value


def _squeezed(text: str) -> str:
    """Drop white space and decoration, to find a formula within another text."""
    return re.sub(r"[\s$\\{}*_`'\"-]", "", values.fold(text)[:10_000])


def as_duration(part: str) -> str:
    """Write 1:02:30 and 2 h 30 as durations, where they could be times of day."""
    part = PATTERNS.clocked.sub(r"\1 h \2 min \3 s", part)
    return PATTERNS.hours.sub(r"\1 h \2 min", part)


def _first_answer(part: str, ask: Ask) -> str:
    """Take the first sentence of a text, unless the query asks more, or the text takes it back later."""
    if ask.several or ask.listing or not (ask.fact or ask.yes_no) or len(part) > 4 * MAX_SENTENCE:
        return part
    first = first_sentence(part)
    rest = part[part.find(first) + len(first) :] if first in part else ""
    if PATTERNS.retracts.search(rest[: 4 * MAX_SENTENCE]):
        return part
    return explained(first)


def _marked_amount(part: str) -> str:
    """Take the first sentence of a marked part, and what is behind its last sign of equality."""
    sentence = explained(first_sentence(part))
    before, equals, after = sentence.replace("≈", "=").rpartition("=")
    return after if equals and any(char.isdigit() for char in after) else before or sentence


def _results(part: str) -> str:
    """Leave of each calculation its result: of "3 + 4 = 7" the 7."""
    kept = []
    for line in part.split("\n"):
        pieces = line.split(" = ")
        if len(pieces) > 1:
            pieces[:-1] = map(_without_calculation, pieces[:-1])
        kept.append(" ".join(pieces))
    return "\n".join(kept)


def _without_calculation(piece: str) -> str:
    match = re.search(r"[-+*/×÷^()0-9.,$€£%\s]{1,200}$", piece)
    return piece[: match.start()] if match and re.search(r"[0-9]", match[0]) else piece


_NOTHING_ASKED = read_query("")
