"""Reading: find the answer in what a model wrote, in the light of what it was asked.

Small models go on after their answer, think aloud before it, and repeat the question around it: the functions here
find the part that answers. They refuse to judge whether the answer is right, and never raise: where nothing can be
found they return None.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from langchain_rlfocal.answers import values

_MAX_SENTENCE = 400
"""Characters of a sentence that are read as a short answer."""

_MAX_CHOICES = 30
_MAX_MARKED = 30
_THOUGHT = "</think>"
_RUN_ON = re.compile(
    r"\n[ \t]{0,8}[*#]{0,4} ?(?:question|q|user|human) ?[0-9]{0,3} ?:|<\|[a-z_]{1,20}\|>|<end_of_turn>|</s>",
    re.IGNORECASE,
)
_MARK = re.compile(
    r"\b(?:answer(?: to [^.:]{1,100}?)?|correct (?:option|choice))[\"'*_`)\]]{0,4}\s?(?:is\b|are\b|:|=)(?! not\b)"
    r"|(?P<key>\"answer\"\s?:)|(?P<boxed>\\boxed\s?\{)|\#{4}",
    re.IGNORECASE,
)
_QUOTES = " \t\n\"'*_`"

_OPTION_STYLES = (
    re.compile(r"\(([A-Za-z])\)\s?"),
    re.compile(r"(?<![\w(])([A-Za-z])\)\s"),
    re.compile(r"(?<!\S)([A-Z])[.:]\s"),
)
_LETTER_FIRST = re.compile(
    r"[\s\"'*_({<$\[]{0,8}(?:(?:option|choice|letter)\s[(\"'*]{0,3})?(?P<letter>[A-Za-z])(?![\w'’])(?P<after>.{0,12})",
    re.IGNORECASE | re.DOTALL,
)
_LETTER_ENDS = re.compile(r"[)\]}>*:\"'_$]|[.,;!](?!\w)|\s{0,12}$|\s?\n|\s(?:is\b|because\b|since\b|as\b|[-–—(])")
_LETTER_WITHIN = re.compile(r"[(\[]([A-Z])[)\]]|\b(?:option|choice)\s[(\"'*]{0,3}([A-Za-z])\b", re.IGNORECASE)
_LETTER_ALONE = re.compile(r"(?<![\w'’])([B-HJ-Z])(?![\w'’])")

_ASKS_YES_NO = re.compile(r"\byes\W{1,8}(?:or\W{1,8})?no\b")
_ASKS_TRUE_FALSE = re.compile(r"\btrue\W{1,8}(?:or\W{1,8})?false\b")
_STARTS_YES_NO = re.compile(
    r"(?:\W{0,8}(?:question|q) ?:)?\W{0,8}(?:(?:if|in|after|when|so|and|but|then)\b[^,?]{0,200}, )?(?:so |then )?"
    r"(?:is|are|am|was|were|do|does|did|can|could|will|would|should|has|have|had|may|might|must|(?:is|are|was|were|do"
    r"|does|did|ca|could|wo|would|should|has|have|had)n't)\b(?! (?:you|we) \w| i know)"
)
_ASKS_NUMBER = re.compile(
    r"\bhow (?:many|much|old|tall|far|long|big|heavy|high|deep|fast)\b|\b(?:what|which|next|missing|the) (?:number|year)\b"
    r"|\bnumber (?:of|that|comes)\b|\b(?:calculate|compute|evaluate|percent(?:age)?|average|remainder|sum|product)\b"
    r"|[0-9)] ?[-+*/×÷^] ?[0-9(]|[0-9] (?:x|plus|minus|times|divided by|modulo) [0-9]"
)
_ASKS_FACT = re.compile(r"\b(?:who|whom|whose|what|which|where|when|name)\b")
_ASKS_PROSE = re.compile(
    r"\b(?:explain|describe|why|essay|story|poem|summari[sz]e|paragraph|discuss|write|advice|how (?:do|does|can|to|would))\b"
)

_YES_NO = re.compile(r"[\s\"'*_`(\[]{0,8}(yes|no)(?![\w'-])(?P<after>.?.?)", re.DOTALL)
_SENTENCE_END = re.compile(r"(?P<word>\w{0,20})[.!?][\"')\]*_`]{0,4}(?=\s|$)")
_ABBREVIATIONS = frozenset(["mr", "mrs", "ms", "dr", "st", "jr", "sr", "vs", "mt", "prof"])
_COURTESY = re.compile(r"(?:sure|certainly|of course|okay|ok|great question)\b(?: thing)?[!.,:] ?")
_THINKING = re.compile(r"(?:let's|let us|let me|first,|step 1|to (?:find|determine|answer|solve)\b)")
_EXPLANATION = re.compile(r"\bbecause\b|,? since\b|, (?:which|who|as|so|but|not|where)\b|(?<=[a-z]) [-–—]{1,3} |; | \(")
_COPULA = re.compile(r" (?:is|are|was|were|equals) |: ")
_PASSIVE = re.compile(r"^\w{1,30} by ")
_MINUS = re.compile(r"(?<![0-9] )(?<![^\W_])(?:minus|negative) (?=[0-9])")
_IT_IS = re.compile(r"(?:it|that|this|he|she|they|these|those|there)(?:'s|'re| is| are| was| were) ")
_JOINT = re.compile(r"(?<=[^\W\d_])-(?=[^\W\d_])|,(?![0-9]{3}(?![0-9]))")
_EDGES = ".,;:!?\"'()[]{}*_`~…"
_ONLY_NUMBERS = re.compile(r"[\s*_`\"'=$€£¥]*[-+]?[0-9][0-9.,'_$€£¥%\s*`\"e/]*")
_LINKS = frozenset(["is", "are", "was", "were", "of", "in", "on", "at", "by"])


@dataclass(frozen=True, slots=True)
class Ask:
    """What a query asks for.

    Attributes:
        options: Text of each lettered option, plain, by its capital letter; empty where the query lists none.
        choices: The plain texts to choose among ("a dog or a cat?", a bulleted list of options).
        yes_no: True if yes and no are the answers.
        number: True if the wording asks for a number.
        digits: True if there is any digit.
        fact: True if the wording asks for a name, a place, a thing.
        prose: True if the wording asks for an explanation or a composition.
        words: The query's words, plain.
    """

    options: Mapping[str, str]
    choices: tuple[str, ...]
    yes_no: bool
    number: bool
    digits: bool
    fact: bool
    prose: bool
    words: frozenset[str]


def read_query(query: str) -> Ask:
    """Read what a query asks for."""
    folded = values.fold(query)
    sentences = re.split(r"(?<=[.?!]) |\n", folded)
    questions = [sentence for sentence in sentences if sentence.endswith("?")] or sentences[:1]
    says_yes_no = bool(_ASKS_YES_NO.search(folded))
    choices = () if says_yes_no else _choices(folded, questions)
    return Ask(
        options=_options(values.clean(query)),
        choices=choices,
        yes_no=says_yes_no or (not choices and bool(_STARTS_YES_NO.match(questions[-1]))),
        number=bool(_ASKS_NUMBER.search(folded)),
        digits=any(char.isdigit() for char in folded),
        fact=bool(_ASKS_FACT.search(folded)),
        prose=bool(_ASKS_PROSE.search(folded)),
        words=frozenset(plain(folded).split()),
    )


def final_part(text: str) -> str:
    """Cut what a model thinks before its answer and the next question that it invents after it."""
    text = text[text.rfind(_THOUGHT) + len(_THOUGHT) :] if _THOUGHT in text else text
    text = text.strip()
    run_on = _RUN_ON.search(text, 1)
    return text[: run_on.start()].strip() if run_on else text


def marked(text: str) -> list[str]:
    r"""List what follows each explicit mark ("answer is", "Answer:", `\boxed{`, "####"), the last mark first."""
    marks = list(_MARK.finditer(text))[-_MAX_MARKED:]
    ends = [*(mark.start() for mark in marks), len(text)][1:]
    parts = [_marked_by(mark, end) for mark, end in zip(marks, ends, strict=True)]
    return [part for part in (part.lstrip(f"{_QUOTES}:=>").rstrip(_QUOTES) for part in reversed(parts)) if part]


def read_option(text: str, ask: Ask) -> str | None:
    """Find the letter of the option that a cleaned text chooses."""
    text = final_part(text)
    head = text[:_MAX_SENTENCE]
    for part in (*marked(text), head):
        letter = _letter(part, ask) or _named_option(first_sentence(values.fold(part[:_MAX_SENTENCE])), ask)
        if letter:
            return letter
    within = [(match[1] or match[2]).upper() for match in _LETTER_WITHIN.finditer(text)]
    alone = [match[1] for match in _LETTER_ALONE.finditer(text)]
    known = [[letter for letter in letters if not ask.options or letter in ask.options] for letters in (within, alone)]
    if known[0]:
        return known[0][-1]
    return _named_option(values.fold(text), ask) or (known[1][-1] if known[1] else None)


def read_number(folded: str, ask: Ask) -> Decimal | None:
    """Find the number that a folded text answers."""
    text = _MINUS.sub("-", values.unlatex(final_part(folded)))
    for part in marked(text):
        found = values.numbers(_explained(first_sentence(part)).rpartition("=")[2])
        if found:
            return found[0][1]
    line = text.partition("\n")[0][:_MAX_SENTENCE]
    if _ONLY_NUMBERS.fullmatch(line) and (found := values.numbers(line)):
        return found[0][1]
    offered = [whole_number(choice) for choice in ask.choices]
    chosen = [value for _, value in values.numbers(first_sentence(text)) if value in offered]
    if chosen:
        return chosen[0]
    found = values.numbers(text)
    return found[-1][1] if found else None


def whole_number(text: str) -> Decimal | None:
    """Value of a folded text that is a number and nothing else but decoration, currency or a percent sign."""
    found = values.numbers(text[:_MAX_SENTENCE])
    if len(found) != 1:
        return None
    rest = text.replace(found[0][0], "", 1)
    return None if rest.strip(f"{_EDGES} $€£¥%=") else found[0][1]


def read_short(folded: str, ask: Ask) -> str | None:
    """Reduce a folded text to its short answer; reading that again changes nothing."""
    text = final_part(folded)
    while text and (shorter := _shorten(text, ask)) != text:
        text = shorter
    return text or None


def first_sentence(text: str) -> str:
    """Take the sentence that answers: the first of the first line, or the last of a text that thinks aloud first.

    A line that ends in a colon announces the next; a code fence is no line.
    """
    lines = [line for line in text[: 4 * _MAX_SENTENCE].split("\n") if line.strip(f"{_QUOTES}:#") and line[:3] != "```"]
    line = next((line for line in lines if not line.endswith(":")), text)[:_MAX_SENTENCE].strip()
    thinks = bool(_THINKING.match(line))
    if thinks:
        line = text.rpartition("\n")[2][-_MAX_SENTENCE:].strip()
    elif courtesy := _COURTESY.match(line):
        line = line[courtesy.end() :] or line
    cuts = [0, *(end.end() for end in _SENTENCE_END.finditer(line) if not _abbreviates(end["word"]))]
    if len(cuts) == 1 or line[cuts[-1] :].strip():
        cuts.append(len(line))
    first, last = cuts[-2:] if thinks else cuts[:2]
    return line[first:last].strip()


def plain(text: str) -> str:
    """Drop what tells no two short answers apart: punctuation at the edges of words, articles, words for digits.

    What consists of nothing else stays, without white space.
    """
    words = [_bare(word) for word in _JOINT.sub(" ", values.in_digits(text)).split()]
    words = [word for word in words if word and word != "the"]
    words = [word for word, after in zip(words, [*words, ""][1:], strict=True) if word not in {"a", "an"} or not after]
    return " ".join(words) or "".join(text.split())


def _bare(word: str) -> str:
    bare = word.strip(_EDGES)
    if bare[:1].isdigit() and f".{bare}" in word[: len(bare) + 3]:
        return f".{bare}"
    return bare if bare[:1] not in "-–—" or bare[1:2].isdigit() or bare[1:2] in {".", "$"} else bare.lstrip("-–—")


def _abbreviates(word: str) -> bool:
    return word in _ABBREVIATIONS or (len(word) == 1 and word.isalpha())


def _marked_by(mark: re.Match[str], end: int) -> str:
    """Take what a mark marks: within its braces, in its quotes if it is a JSON key, else up to the end."""
    text = mark.string[mark.end() : end]
    if mark["key"]:
        value = values.parse_json_start(text)
        return text if value is None else value if isinstance(value, str) else values.dump_json(value)
    if not mark["boxed"]:
        return text
    depth, text = 1, mark.string[mark.end() : mark.end() + _MAX_SENTENCE]
    for at, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if not depth:
            return text[:at]
    return text


def _explained(sentence: str) -> str:
    """Cut an explanation that follows an answer."""
    match = _EXPLANATION.search(sentence, 1)
    return sentence[: match.start()].strip() if match else sentence


def _options(query: str) -> dict[str, str]:
    """Find the last complete list of options in any style; each option's text ends at its line's end."""
    best: dict[str, str] = {}
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
    return best


def _choices(folded: str, questions: list[str]) -> tuple[str, ...]:
    if _ASKS_TRUE_FALSE.search(folded):
        return ("true", "false")
    _, listed, after = folded.rpartition("options:\n")
    if listed:
        bullets = [line for line in after.split("\n") if line.startswith(("- ", "* ", "• "))]
        return tuple(dict.fromkeys(plain(line[2:]) for line in bullets[:_MAX_CHOICES]))
    sentence = next((question for question in questions if " or " in question), "")
    before, _, after = sentence.rpartition(" or ")
    last = plain(re.split(r"[,;:?!)]|\. |\.$", after)[0])
    size = len(last.split())
    pieces = [plain(piece) for piece in re.split(r"[,;:(] ?| or ", before) if piece.strip()]
    if not 1 <= size <= 4 or not pieces or last == "not":
        return ()
    chosen = [" ".join(pieces[-1].split()[-size:])]
    for piece in reversed(pieces[:-1]):
        if len(piece.split()) > size:
            break
        chosen.append(piece)
    distinct = tuple(dict.fromkeys((*reversed(chosen), last)))
    return distinct if len(distinct) > 1 else ()


def _letter(text: str, ask: Ask) -> str | None:
    """Read the letter that a text begins with, unless it is a word ("A dog", "I think") or no option."""
    match = _LETTER_FIRST.match(text)
    if not match:
        return None
    letter, after = match["letter"], match["after"]
    known = letter.upper() in ask.options if ask.options else True
    ends = bool(_LETTER_ENDS.match(after)) or not after
    stands = ends if letter.islower() or letter in "AI" else ends or after[:1].isspace()
    return letter.upper() if known and stands else None


def _named_option(folded: str, ask: Ask) -> str | None:
    """Find the one option whose text a folded text gives; an option within another's text gives way to it."""
    said = f" {plain(folded)} "
    exact = [letter for letter, text in ask.options.items() if said == f" {text} "]
    if exact:
        return exact[0]
    named = {letter: text for letter, text in ask.options.items() if text and f" {text} " in said}
    longest = [k for k, v in named.items() if not any(v in other and v != other for other in named.values())]
    return longest[0] if len(longest) == 1 else None


def _shorten(text: str, ask: Ask) -> str:
    parts = marked(text)
    sentence = first_sentence(values.unlatex(parts[0] if parts else text))
    verdict = _yes_no(sentence, ask)
    if verdict:
        return verdict
    said = f" {plain(sentence)} "
    mentions = {choice: at for choice in ask.choices if (at := said.find(f" {choice} ")) >= 0}
    mentions = {choice: at for choice, at in mentions.items() if not said[: at + 1].endswith((" not ", "n't "))}
    if mentions:
        return min(mentions, key=lambda choice: (mentions[choice], -len(choice)))
    sentence = _explained(_IT_IS.sub("", sentence, count=1) if _IT_IS.match(sentence) else sentence)
    short = plain(sentence if ask.yes_no else _answering_side(sentence, ask))
    number = whole_number(short)
    return short if number is None else values.number_text(number)


def _yes_no(sentence: str, ask: Ask) -> str | None:
    match = _YES_NO.match(sentence)
    if match and (ask.yes_no or not match["after"].strip() or match["after"][0] in _EDGES):
        return match[1]
    said = [word for word in plain(sentence).split()[:6] if word in {"yes", "no"}] if ask.yes_no else []
    return said[0] if len(set(said)) == 1 else None


def _answering_side(sentence: str, ask: Ask) -> str:
    """Drop what only repeats the question: "The capital of France is Paris", "Paris is the capital of France"."""
    copula = _COPULA.search(sentence, 1)
    if not ask.words:
        return sentence
    if copula:
        head, tail = sentence[: copula.start()], sentence[copula.end() :]
        told = [_repeated(side, ask) for side in (head, tail)]
        if max(told) >= 0.6:
            head_repeats = told[0] > told[1] or (told[0] == told[1] and len(head) > len(tail))
            return _PASSIVE.sub("", tail) if head_repeats else head
    words = plain(sentence).split()
    known = [word in ask.words or word in _LINKS for word in words]
    if all(known):
        return sentence
    first, last = known.index(False), len(known) - known[::-1].index(False)
    if first == 1 and words[0] not in _LINKS:  # one word may belong to the answer: "Mexico City"
        first = 0
    if last == len(words) - 1 and words[-1] not in _LINKS:
        last = len(words)
    return " ".join(words[first:last])


def _repeated(side: str, ask: Ask) -> float:
    """Share of a side's words, links aside, that the query holds already."""
    words = [word for word in plain(side).split() if word not in _LINKS]
    return sum(word in ask.words for word in words) / len(words) if words else 0.0
