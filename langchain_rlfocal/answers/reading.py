r"""Reading: what a query asks for, and which part of a text answers it.

Models think before their answer, go on after it, and repeat the question around it. The functions here find the part
that answers. They compare nothing, and never raise.
"""

import re
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from itertools import groupby, takewhile
from typing import TypeVar

from langchain_rlfocal.answers import values
from langchain_rlfocal.answers.code import asks_for_code
from langchain_rlfocal.answers.dates import find_facts, plain_numbers
from langchain_rlfocal.answers.lists import asks_for_list
from langchain_rlfocal.answers.quantities import Fact
from langchain_rlfocal.answers.values import NEGATIONS, PATTERNS, WORDS

_T = TypeVar("_T")

MAX_SENTENCE = 400
"""Characters of a sentence that are read as a short answer."""

_MAX_QUERY = 20_000
_MAX_KEPT = 2_000
_MAX_CHOICES = 30
_MAX_MARKED = 30
_QUOTES = " \t\n\"'*_`"

_OPTION_STYLES = (
    re.compile(r"\(([A-Za-z])\)\s?"),
    re.compile(r"(?<![\w(])([A-Za-z])\)\s"),
    re.compile(r"(?<!\S)([A-Z])[.:]\s"),
)


_UNSPACED = re.compile("([\u3040-\u30ff\u3400-\u9fff\u0e00-\u0eff\u1000-\u109f\U00020000-\U0003ffff])")
"""Han, Kana, Thai, Lao, Burmese."""
_EDGES = "$।.,;:!?\"'()[]{}*_`~…|<>«»。、，；：！？「」『』（）【】¿¡"
_CONTRACTIONS = (
    (re.compile(r"\bcan(?:'t|not)\b", re.IGNORECASE), "can not"),
    (re.compile(r"\bwon't\b", re.IGNORECASE), "will not"),
    (re.compile(r"\bshan't\b", re.IGNORECASE), "shall not"),
    (re.compile(r"n't\b", re.IGNORECASE), " not"),
    (re.compile(r"'re\b", re.IGNORECASE), " are"),
    (re.compile(r"'ve\b", re.IGNORECASE), " have"),
    (re.compile(r"'ll\b", re.IGNORECASE), " will"),
    (re.compile(r"(?<=\bi)'m\b", re.IGNORECASE), " am"),
    (re.compile(r"\b(it|he|she|that|there|here|what|who|where)'s\b", re.IGNORECASE), r"\1 is"),
    (re.compile(r"'s\b", re.IGNORECASE), ""),
)


_CLOSING = r"[\"'*_`)\]]{0,4}"
_SIGN = rf"\s?(?:[:：=]|\s?[-–—](?=\s)){_CLOSING}"


def _either(words: str) -> str:
    spelled = {form for word in values.spaced(words) for form in (values.clean(word).casefold(), values.fold(word))}
    return "|".join(map(re.escape, sorted(spelled, key=lambda word: (-len(word), word))))


def _answer_marks() -> re.Pattern[str]:
    """Write the pattern, the words grouped by their first letter, so that a search tries only those that fit."""
    table = WORDS.entries["answer_marks"]
    branches: list[tuple[str, str]] = []
    for nouns, between, verbs in table["nouns"]:
        said = rf"(?: (?:{_either(between)}))?" if between else ""
        is_ = rf"| (?:{_either(verbs)})(?![^\W_])(?:\s?:)?" if verbs else ""
        is_ = f"|{table['joined'][nouns]}" if nouns in table["joined"] else is_
        for noun in _either(nouns).split("|"):
            first = noun[: 2 if noun[0] == "\\" else 1]
            branches.append((first, rf"{noun[len(first) :]}{said}{_CLOSING}(?:{_SIGN}{is_})"))
    grouped = groupby(sorted(branches), key=lambda branch: branch[0])
    spaced = "|".join(f"{letter}(?:{'|'.join(rest for _, rest in group)})" for letter, group in grouped)
    signs = rf"(?:{table['unspaced']})(?:{_CLOSING}{_SIGN}|(?:{table['unspaced_verbs']})(?![不没沒非]))"
    denied = rf"(?! ?(?:{_either(table['denied'])})\b)"
    return re.compile(rf"(?:(?<![^\W_])(?:{spaced})|{signs})(?:(?<=[-–—:：=\"'*_`)\]])|{denied})", re.IGNORECASE)


ANSWER_MARKS = _answer_marks()
"""Finds the final marks of many languages ("Respuesta:", "La réponse est", "答案是") in cleaned or folded text.

What precedes the word ("final", "correct", an article) is not part of the match; what follows the match is the answer.
"""


def _asks(name: str) -> cached_property[bool]:
    """Make a property that tells whether a pattern finds something in the query."""
    return cached_property(lambda ask: getattr(PATTERNS, name).search(ask.folded) is not None)


class Ask:
    """What a query asks for; each property is computed when first asked for. Of a long query both ends count."""

    cased = _asks("asks_cased")
    """Whether it asks for what is told apart by its case, such as a symbol or a password."""
    duration = _asks("asks_duration")
    literal = _asks("asks_literal")
    """Whether it asks for the exact value of an expression of a program."""
    rates = _asks("rates")
    """Whether it asks for a rating."""
    ratio = _asks("asks_ratio")
    """Whether it asks for a ratio, which "2 to 3" is then."""
    share = _asks("asks_share")
    """Whether it asks for a probability or a part of a whole, which 1 in 4 and 25 % write alike."""
    when = _asks("asks_when")
    """Whether it asks for a date or a time."""
    _says_yes_no = _asks("asks_yes_no")

    def __init__(self, query: str) -> None:
        if len(query) > _MAX_QUERY:
            query = f"{query[: _MAX_QUERY // 2]}\n{query[-_MAX_QUERY // 2 :]}"
        self.text = values.clean(query)
        self.folded = values.fold(query)
        pieces = re.split(r"(?<=[.?!।]) |(?<=[。?!])|\n", self.folded)
        self._sentences = [piece.strip() for piece in pieces if piece.strip()] or [""]
        self._asked = [one for one in self._sentences if one.endswith("?")]
        self._told = [one for one in self._sentences if PATTERNS.tells_to_answer.search(one)]
        self._questions = (
            self._asked
            or [one for one in self._sentences if PATTERNS.asks_yes_no_elsewhere.search(one)]
            or self._told[-1:]
            or self._sentences[:1]
        )
        self._options, self.options_first = _options(self.text)
        self.options: Mapping[str, str] = self._options or _labelled_options(query)
        """Letter to plain text of the lettered options that it lists; `options_first` if a question follows them, so that
        they may be context and no options."""

    @cached_property
    def letters(self) -> bool:
        """Whether the options' labels are Latin letters."""
        return not self.options or "A" in self.options

    @cached_property
    def asking(self) -> str:
        """The part of it that asks, where it is a command over a text of its own ("Extract the name: ..."); else all."""
        over = PATTERNS.over_text.match(self.text)
        return over[0] if over else self.text

    @cached_property
    def choices(self) -> tuple[str, ...]:
        """Plain texts of the alternatives that it offers in words."""
        return () if self._says_yes_no or self.code else _choices(self)

    @cached_property
    def yes_no(self) -> bool:
        """Whether yes and no are the answers."""
        if self._says_yes_no or self.choices or (self.foreign and (self.number or self.when)):
            return self._says_yes_no
        question = self._questions[-1]
        if PATTERNS.starts_yes_no.match(question):
            return True
        if PATTERNS.english.search(question):
            return False
        asks = question.endswith("?") or PATTERNS.asks_yes_no_elsewhere.search(question)
        starts = question.startswith(("est-ce qu", "هل ", "czy "))
        return starts or bool(asks and not PATTERNS.wh_elsewhere.search(question))

    @cached_property
    def number(self) -> bool:
        """Whether it asks for a number."""
        return not self.identifier and PATTERNS.asks_number.search(self.folded) is not None

    @cached_property
    def identifier(self) -> bool:
        """Whether it asks for a name with digits: an order number, a version, an address."""
        return any(map(PATTERNS.asks_names_identifier.search, self._questions))

    @cached_property
    def version(self) -> bool:
        """Whether it asks for a version."""
        return self.identifier and "version" in self._questions[-1]

    @cached_property
    def fact(self) -> bool:
        """Whether it asks for a name, a place, a thing."""
        if PATTERNS.asks_fact.search(self.folded) or PATTERNS.asks_word.search(self.folded):
            return True
        return self.foreign and "?" in self.folded and PATTERNS.wh_elsewhere.search(self._questions[-1]) is not None

    @cached_property
    def prose(self) -> bool:
        """Whether a question, or a command beside it, wants prose; a story that a number is asked about may hold such words."""
        if self.rates:
            return False
        if self.number and any(map(PATTERNS.how_many.search, [*self._questions, *self._sentences[-2:]])):
            return any(PATTERNS.asks_prose.match(PATTERNS.polite.sub("", one)) for one in self._sentences)
        return any(map(PATTERNS.asks_prose.search, self._sentences))

    @cached_property
    def code(self) -> bool:
        """Whether it asks for code or a command."""
        return asks_for_code(self.text) or PATTERNS.asks_command.search(self.folded) is not None

    @cached_property
    def listing(self) -> bool:
        """Whether it asks for several things."""
        return asks_for_list(self.text)

    @cached_property
    def several(self) -> bool:
        """Whether it asks more than one question: "who and when", but not "if it is 5, how many"."""
        if len(self._asked) > 1:
            return True
        pairs = [(one, PATTERNS.several.search(one)) for one in self._questions]
        return any(
            second and (not PATTERNS.condition.match(one) or PATTERNS.asks_first.search(one[: second.start()]))
            for one, second in pairs
        )

    @cached_property
    def names(self) -> bool:
        """Whether it asks for a name or a thing beside numbers."""
        return any(map(PATTERNS.asks_names.search, self._questions))

    @cached_property
    def foreign(self) -> bool:
        """Whether it is in another language than English."""
        question = self._questions[-1]
        starts = PATTERNS.starts_yes_no.match(question) and not PATTERNS.not_english.search(question)
        english = starts or PATTERNS.english_verb.match(self.folded) or PATTERNS.or_word.search(self.folded)
        found = (pattern.search(self.folded) for pattern in (PATTERNS.english, PATTERNS.asks_prose))
        return bool(self.folded) and not (english or any(found))

    @cached_property
    def portuguese(self) -> bool:
        """Whether it is in Portuguese, where "no" is no denial."""
        return self.foreign and bool(
            PATTERNS.portuguese.search(self.folded) and not PATTERNS.spanish.search(self.folded)
        )

    @cached_property
    def clock(self) -> bool:
        """Whether it asks for a time of day, in a language that may write 16.30."""
        return self.foreign and PATTERNS.asks_clock.search(self.folded) is not None

    @cached_property
    def negated(self) -> bool:
        """Whether its question denies something."""
        return not NEGATIONS.isdisjoint(content_words(self._questions[-1]))

    @cached_property
    def content(self) -> tuple[str, ...]:
        """The stems of its question's words that count, in order."""
        return tuple(map(stem, content_words(self._questions[-1])))

    @cached_property
    def words(self) -> frozenset[str]:
        """The plain words of its questions, or of all of it where it has none."""
        asked = " ".join(self._asked) or (self.folded if self.asking == self.text else values.fold(self.asking))
        words = plain(uncontracted(asked)).split()
        return frozenset(part for word in words for part in apart(without_ending(word) if self.foreign else word))

    @cached_property
    def stems(self) -> frozenset[str]:
        """The stems of `words`."""
        return frozenset(map(stem, self.words))

    @cached_property
    def facts(self) -> frozenset[tuple[str, object]]:
        """The facts that it states, as kind and value."""
        return frozenset((fact.kind, fact.value) for fact in self._found)

    @cached_property
    def numbers(self) -> frozenset[object]:
        """The numbers that it states, those within its other facts included."""
        return frozenset(plain_numbers(self.asking)) | {fact.stated for fact in self._found if fact.stated is not None}

    @cached_property
    def _found(self) -> list[Fact]:
        return find_facts(self.asking, query=self.text, day_first=self.foreign)

    def repeats(self, word: object) -> bool:
        """Whether the query holds a folded word, or another form of it."""
        return isinstance(word, str) and (word in self.words or stem(word) in self.stems)

    def offers(self) -> list[str]:
        """List the sentences that may offer alternatives."""
        return [*self._questions, *self._told]


_read_short, _read_long = lru_cache(maxsize=1024)(Ask), lru_cache(maxsize=64)(Ask)


def read_query(query: str) -> Ask:
    """Read what a query asks for; kept, since it is asked for before, while and after its answers come, of many at once."""
    return (_read_short if len(query) <= _MAX_KEPT else _read_long)(query)


def _kept(read: Callable[[str], _T]) -> Callable[[str], _T]:
    """Keep what a function reads of short texts: each reader of one text asks for it."""
    cached = lru_cache(maxsize=256)(read)
    return lambda text: cached(text) if len(text) <= _MAX_KEPT else read(text)


@_kept
def final_part(text: str) -> str:
    """Cut what a model thinks before its answer and the next question that it invents after it."""
    thoughts = list(PATTERNS.thought.finditer(text))
    text = text[thoughts[-1].end() :] if thoughts else text
    text = text.strip()
    run_on = PATTERNS.run_on.search(text, 1)
    return text[: run_on.start()].strip() if run_on else text


@_kept
def marked(text: str) -> tuple[str, ...]:
    r"""List what follows each explicit mark ("answer is", "Answer:", `\boxed{`, "####"), the last mark first."""
    own = list(PATTERNS.mark.finditer(text))[-_MAX_MARKED:]
    covered = [(mark.start(), mark.end()) for mark in own]
    others = [
        mark
        for mark in list(ANSWER_MARKS.finditer(text))[-_MAX_MARKED:]
        if not any(start < mark.end() and mark.start() < end for start, end in covered)
    ]
    marks = sorted([*own, *others], key=lambda mark: mark.start())[-_MAX_MARKED:]
    ends = [*(mark.start() for mark in marks), len(text)][1:]
    parts = [_marked_by(mark, max(end, mark.end())) for mark, end in zip(marks, ends, strict=True)]
    return tuple(part for part in (part.lstrip(f"{_QUOTES}:=>：").rstrip(_QUOTES) for part in reversed(parts)) if part)


def unheaded(text: str) -> str:
    """Drop headings, and a first line that only announces the next, from the beginning of a text."""
    while True:
        line, newline, rest = text.partition("\n")
        announces = line.rstrip().endswith((":", "：")) and len(line) < 200
        if newline and rest.strip() and (announces or PATTERNS.heading.fullmatch(line)):
            text = rest.strip()
        elif courtesy := PATTERNS.courtesy.match(text):
            rest = text[courtesy.end() :].lstrip()
            if not rest:
                return text
            text = rest
        else:
            preamble = PATTERNS.preamble.match(text)
            return text[preamble.end() :] if preamble and text[preamble.end() :].strip() else text


def unlabelled(text: str, ask: Ask) -> str:
    """Drop a label before a value, such as "Intent: ", where the label repeats the query or says nothing."""
    match = PATTERNS.label.match(text)
    if match is None or "\n" in text.strip() or PATTERNS.label_within.search(text, match.start("value")):
        return text
    label = plain(values.fold(match["label"])).split()
    known = all(word in WORDS["generic_labels"] or ask.repeats(word) for word in label)
    return text[match.start("value") :] if label and known else text


def sentences_of(text: str) -> list[str]:
    """Split a text into sentences; a line ends one too."""
    found = []
    for line in text.split("\n"):
        start = 0
        for end in PATTERNS.sentence_end.finditer(line):
            if not _abbreviates(end["word"], line[end.end() : end.end() + 2]):
                found.append(line[start : end.end()].strip())
                start = end.end()
        found.append(line[start:].strip())
    return [sentence for sentence in found if sentence.strip(f"{_QUOTES}:#-")]


def conclusion(text: str, ask: Ask) -> str | None:
    """Find the last sentence of a text that thinks aloud; None where it does not conclude.

    It does where it says so, sets one number bold, states what a calculation before it comes to, or says in the words of
    the query alone what follows from one.
    """
    sentences = sentences_of(text[-4 * MAX_SENTENCE :])
    if len(sentences) < 2:
        return None
    last = sentences[-1]
    if PATTERNS.conclusion.match(last) or len(PATTERNS.bold.findall(last)) == 1:
        return last
    result = (
        None
        if "=" in last
        else next(reversed(list(PATTERNS.result.finditer(text[-8 * MAX_SENTENCE : -len(last)]))), None)
    )
    if not result:
        return None
    words = [word for word in plain(values.fold(last)).split() if not any(map(str.isdigit, word))]
    restates = len(words) > 1 and any(map(str.isdigit, last)) and sum(map(ask.repeats, words)) > len(words) / 2
    return last if restates or set(plain_numbers(result[1])) & set(plain_numbers(last)) else None


def concluding(text: str) -> bool:
    """Whether a text is several sentences, or one with a conclusion."""
    return len(sentences_of(text[-4 * MAX_SENTENCE :])) > 1 or concluding_clause(text) is not None


def concluding_clause(sentence: str) -> str | None:
    """Find what is behind the last "so" in a sentence."""
    ends = list(PATTERNS.so.finditer(sentence[-4 * MAX_SENTENCE :]))
    return sentence[-4 * MAX_SENTENCE :][ends[-1].end() :] if ends else None


def first_sentence(text: str) -> str:
    """Take the sentence that answers: the first of the first line, or the last of a text that thinks aloud first.

    A line that ends in a colon announces the next; a code fence is no line.
    """
    lines = [line for line in text[: 4 * MAX_SENTENCE].split("\n") if line.strip(f"{_QUOTES}:#") and line[:3] != "```"]
    line = next((line for line in lines if not line.endswith(":")), text)[:MAX_SENTENCE].strip()
    thinks = bool(PATTERNS.thinking.match(line))
    if thinks:
        line = text.rpartition("\n")[2][-MAX_SENTENCE:].strip()
    elif courtesy := PATTERNS.courtesy.match(line):
        line = line[courtesy.end() :] or line
    sentences = sentences_of(line)
    if not sentences:
        return line
    return sentences[-1] if thinks else sentences[0]


def explained(sentence: str) -> str:
    """Cut an explanation that follows an answer."""
    match = PATTERNS.explanation.search(sentence, 1)
    return sentence[: match.start()].strip() if match else sentence


def plain(text: str) -> str:
    """Drop what tells no two short answers apart: punctuation at the edges of words, articles, words for digits.

    What consists of nothing else stays, without white space.
    """
    words = [bare(word) for word in PATTERNS.joint.sub(" ", values.in_digits(text)).split()]
    words = [word for word in words if word and word != "the"]
    words = [word for word, after in zip(words, [*words, ""][1:], strict=True) if word not in {"a", "an"} or not after]
    return " ".join(words) or "".join(text.split())


def joined_apart(text: str) -> str:
    """Set apart words that a hyphen, a slash or a comma joins, and initials."""
    return PATTERNS.joint.sub(" ", PATTERNS.initials.sub(" ", text))


def uncontracted(text: str) -> str:
    """Write "isn't" as "is not", and drop the possessive's "'s"."""
    if "'" in text or "cannot" in text.lower():
        for pattern, plain_text in _CONTRACTIONS:
            text = pattern.sub(plain_text, text)
    return text


def bare(word: str) -> str:
    """Strip punctuation from the edges of a word, but what makes a number of it."""
    stripped = word.strip(_EDGES)
    if stripped[:1].isdigit() and f".{stripped}" in word[: len(stripped) + 3]:
        return f".{stripped}"
    is_sign = stripped[1:2].isdigit() or stripped[1:2] in {".", "$"}
    return stripped if is_sign else stripped.lstrip("-–—")


def content_words(folded: str) -> list[str]:
    """List the words of a folded sentence that count, in order."""
    return [word for word in plain(uncontracted(folded)).split() if word not in WORDS["no_content"]]


def readable(part: str, ask: Ask) -> str:
    """Write LaTeX, degrees in words, and 16.30 where a time is asked for, as facts are read."""
    part = values.unlatex(part)
    if PATTERNS.temperature.search(part):
        part = PATTERNS.fahrenheit.sub(" °F", PATTERNS.celsius.sub(" °C", PATTERNS.celsius_first.sub(r"\1 °C", part)))
    return PATTERNS.dotted_clock.sub(r"\1:\2", part) if ask.clock else part


def stem(word: str) -> str:
    """Cut the endings that most often tell forms of one English word apart."""
    for ending in ("ing", "ied", "ies", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    return word[:-1] if len(word) > 3 and word.endswith(("e", "y")) else word


def without_ending(word: str) -> str:
    """Cut the ending that makes a Korean or Turkish noun a sentence, or a genitive."""
    return PATTERNS.copula_endings.sub("", word) or word


def unspaced(text: str) -> bool:
    """Whether a text holds characters of a script that sets no spaces."""
    return _UNSPACED.search(text) is not None


def apart(word: str) -> list[str]:
    """List a word; of scripts without spaces each character."""
    pieces = [] if word.isascii() else _UNSPACED.split(word)
    return [bared for piece in pieces if (bared := piece.strip(_EDGES + "・"))] if len(pieces) > 1 else [word]


def letter_of_option(text: str) -> re.Match[str] | None:
    """Match the letter that a text begins with."""
    return PATTERNS.letter_first.match(text)


def _abbreviates(word: str | None, after: str) -> bool:
    folded = (word or "").casefold()
    if folded in WORDS["abbreviations_before_numbers"] and after[-1:].isdigit():
        return True
    return folded in WORDS["abbreviations"] or (len(folded) == 1 and folded.isalpha())


def _marked_by(mark: re.Match[str], end: int) -> str:
    """Take what a mark marks: within its braces, in its quotes if it is a JSON key, else up to the end."""
    text = mark.string[mark.end() : end]
    groups = mark.re.groupindex
    if "key" in groups and mark["key"]:
        text = mark.string[mark.end() :]
        value = values.parse_json_start(text.lstrip())
        return text if value is None else value if isinstance(value, str) else values.dump_json(value)
    if "boxed" not in groups or not mark["boxed"]:
        return text
    depth, text = 1, mark.string[mark.end() : mark.end() + MAX_SENTENCE]
    for at, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if not depth:
            return text[:at]
    return text


def _options(query: str) -> tuple[dict[str, str], bool]:
    """Find the last complete list of options in any style; each option's text ends at its line's end.

    Returns:
        The options; and whether a question follows them, so that they may be something else.
    """
    best: dict[str, str] = {}
    follows = False
    for style in _OPTION_STYLES:
        runs: list[list[re.Match[str]]] = [[]]
        for match in style.finditer(query):
            run, letter = runs[-1], match[1].upper()
            starts_line = query[max(0, match.start() - 8) : match.start()].rpartition("\n")[2].strip() == ""
            if letter == chr(ord("A") + len(run)):
                run.append(match)
            elif letter == "A" and (starts_line or len(run) < 2):
                runs.append([match])
        run = next((run for run in reversed(runs) if len(run) > 1), [])
        if len(run) > len(best):
            ends = [match.start() for match in run[1:]] + [len(query)]
            texts = [query[match.end() : end].partition("\n")[0] for match, end in zip(run, ends, strict=True)]
            best = {match[1].upper(): plain(values.fold(text)) for match, text in zip(run, texts, strict=True)}
            rest = query[run[-1].end() + len(texts[-1]) :].casefold()
            asks = "?" in rest or re.search(r"\bquestion\b", rest) is not None
            follows = asks and not PATTERNS.options_follow.search(rest)
    return best, follows


_LABELS = ("123456789", "АБВГДЕЖ", "アイウエオカキ", "أبجدهوز", "甲乙丙丁戊", "①②③④⑤⑥⑦⑧⑨", "ABCDEFGH")


def _labelled_options(query: str) -> dict[str, str]:
    """Find options on lines of their own whose labels are digits, or letters of other scripts; labels as they are cleaned."""
    lines = [(match[1], match[2]) for match in PATTERNS.labelled.finditer(query[-_MAX_QUERY:])]
    for labels in _LABELS:
        run: list[tuple[str, str]] = []
        for label, text in lines:
            if len(run) < len(labels) and label == labels[len(run)]:
                run.append((label, text))
            elif label == labels[0]:
                run = [(label, text)]
        if len(run) < 3 or (labels[0] in "1A" and not PATTERNS.chooses.search(values.fold(query))):
            continue
        return {values.clean(label): plain(values.fold(text)) for label, text in run}
    return {}


def _choices(ask: Ask) -> tuple[str, ...]:
    folded, questions = ask.folded, ask.offers()
    if PATTERNS.asks_true_false.search(folded):
        return ("true", "false")
    _, listed, after = folded.rpartition("options:\n")
    if listed:
        bullets = [line for line in after.split("\n") if line.startswith(("- ", "* ", "• "))]
        return tuple(dict.fromkeys(plain(line[2:]) for line in bullets[:_MAX_CHOICES]))
    for match in reversed(list(PATTERNS.listed_choices.finditer(folded))[-4:]):
        if len(found := _separated(match["listed"])) > 1:
            return found
    aside = PATTERNS.aside.search(folded)
    if aside and len(found := _separated(aside["listed"])) > 1 and not any(map(str.isdigit, aside[0])):
        return found
    for ends in filter(None, map(PATTERNS.colon_list.search, questions)):
        if len(found := _separated(ends["listed"])) > 2 and not any(map(str.isdigit, ends["listed"])):
            return found
    if ask.prose:
        return ()
    return next(filter(None, (_alternatives(question, foreign=ask.foreign) for question in questions)), ())


def _alternatives(sentence: str, *, foreign: bool) -> tuple[str, ...]:
    """Find the alternatives of "a, b or c" in a folded sentence."""
    unspaced = PATTERNS.or_unspaced.search(sentence) or PATTERNS.or_asked_twice.search(sentence)
    if unspaced:
        first, last = unspaced["first"], unspaced["last"]
        return tuple(dict.fromkeys((first[-len(last) :], last))) if len(first) >= len(last) else ()
    separator = (
        PATTERNS.or_word
        if not foreign
        else PATTERNS.or_short
        if PATTERNS.writes_o.search(sentence)
        else PATTERNS.or_elsewhere
    )
    ors = list(separator.finditer(sentence))
    if not ors:
        return ()
    before, after = sentence[: ors[-1].start()], sentence[ors[-1].end() :]
    raw = re.split(r"[,;:?!)«»\"]|\. |\.$", after)[0].split()
    last = _without_articles([*raw[:1], *takewhile(lambda word: word not in WORDS["cuts"], raw[1:])])
    size = len(last)
    pieces = [piece for piece in re.split(r"[,;:(] ?", separator.sub(",", before)) if piece.strip()]
    if not 1 <= size <= 4 or not pieces:
        return ()
    if last[0] in NEGATIONS:  # "spam or not spam"
        same = plain(" ".join(last[1:]))
        return (same, f"{last[0]} {same}") if same and f" {same} " in f" {plain(before)} " else ()
    own = pieces[-1].split()
    while own and own[-1] in WORDS["copulas"]:
        own.pop()
    at = max((i for i, word in enumerate(own) if word in WORDS["articles"]), default=-1)
    if at >= 0 and 0 < len(own) - at - 1 < size:
        if own[-1] == last[-1]:  # "a planet or a dwarf planet"
            own = own[at + 1 :]
        else:  # "the active or the passive voice": one noun for both
            size = len(own) - at - 1
            last = last[:size]
    chosen = [plain(" ".join(own[-size:]))]
    for piece in reversed(pieces[:-1]):
        words = _without_articles(plain(piece).split())
        if len(words) > size:
            tells = words[0] in WORDS["telling"] and len(words) - size <= 3
            if tells or (words[0] in WORDS["first_verbs"] and re.search(r"[,;]", before)):
                chosen.append(" ".join(words[-size:]))
            break
        chosen.append(" ".join(words))
    distinct = tuple(dict.fromkeys((*reversed(chosen), plain(" ".join(last)))))
    return distinct if len(distinct) > 1 and all(distinct) else ()


def _without_articles(words: list[str]) -> list[str]:
    while len(words) > 1 and words[0] in WORDS["articles"]:
        words = words[1:]
    while len(words) > 1 and words[-1] in WORDS["copulas"]:
        words = words[:-1]
    return words


def _separated(listed: str) -> tuple[str, ...]:
    """Split a list of alternatives at commas, slashes, bars or semicolons; empty where a piece is no short label."""
    pieces = [plain(re.sub(r"^(?:and|or) ", "", piece.strip())) for piece in re.split(r"[,;/|]| or ", listed)]
    pieces = [piece for piece in pieces if piece]
    if not all(len(piece.split()) <= 4 for piece in pieces):
        return ()
    return tuple(dict.fromkeys(pieces[:_MAX_CHOICES]))
