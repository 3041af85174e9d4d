"""Choices: which of the answers that a query offers a text takes: a lettered option, yes or no, one of several words.

Each of these answers at most once. A text that takes none clearly, or takes one and adds something of its own, is read
as no choice.
"""

import re

from langchain_rlfocal.answers import values
from langchain_rlfocal.answers.reading import (
    MAX_SENTENCE,
    Ask,
    bare,
    content_words,
    final_part,
    first_sentence,
    letter_of_option,
    marked,
    plain,
    sentences_of,
    stem,
    uncontracted,
    unheaded,
    unlabelled,
    unspaced,
)
from langchain_rlfocal.answers.values import NEGATIONS, WORDS

_WORDS = values.Words("choices")


_MAX_BARE = 40
_MAX_OPTION_WORDS = 2  # of a list before the question; what is longer is context

_CONCLUDES = frozenset(["so", "therefore", "thus", "hence"])
_ROOT = 4  # letters that forms of one adjective share
_EDGES = ".,;:!?\"'()[]{}*_`~…。，！？、"
_YES_NO_EDGES = " \t\n\r.,;:!?¡¿\"'()[]{}*_`~…。!?、،؟।"


def _yes_and_no() -> tuple[frozenset[str], frozenset[str]]:
    pairs = WORDS.entries["yes_no"].values()
    yes, no = (frozenset(values.fold(word) for pair in pairs for word in pair[i].split()) for i in (0, 1))
    return yes - no, no - yes


_YES, _NO = _yes_and_no()


def yes_no(phrase: str) -> bool | None:
    """Tell whether a word or short phrase, and nothing beside it, is a yes or a no in some language.

    Args:
        phrase: The whole answer; case, accents and punctuation around it do not matter.

    Returns:
        True for yes, False for no, None for anything else and for a word that is yes in one language and no in another.
    """
    if len(phrase) > _MAX_BARE:
        return None
    word = values.fold(phrase).strip(_YES_NO_EDGES)
    return True if word in _YES else False if word in _NO else None


def bare_letter(text: str, ask: Ask) -> str | None:
    """Read a text that is nothing but the letter of an option."""
    if len(text) > _MAX_BARE or not ask.letters:
        return None
    match = _WORDS.letter_only.fullmatch(text)
    letter = match[1].upper() if match else None
    return letter if letter in ask.options else None


def read_option(text: str, ask: Ask) -> str | None:
    """Find the letter of the option that a cleaned text chooses; of several letters all, joined by commas.

    Where a question follows the lettered list, the list may be context: then only a text that is a letter, or an option's
    own words, chooses.
    """
    text = final_part(text)
    parts = marked(text)
    if several := _WORDS.letters.fullmatch((parts or [text])[0][:MAX_SENTENCE]):
        letters = sorted({letter.upper() for letter in _WORDS.letter.findall(several[0])})
        return ",".join(letters) if set(letters) <= set(ask.options) else None
    if ask.options_first or not ask.letters:
        part = (parts or [text])[0][:MAX_SENTENCE]
        letter = _only_label(part, ask)
        if letter or ask.options_first:
            return letter
    head = text[:MAX_SENTENCE]
    for part in (*parts, head):
        letter = (_letter(part, ask) if ask.letters else None) or _named_option(
            first_sentence(values.fold(part[:MAX_SENTENCE])), ask
        )
        if letter:
            return letter
    if not ask.letters:
        return None
    if changed := _WORDS.changes.search(text):
        letter = changed[1].upper()
        return letter if letter in ask.options else None
    within = [(match[1] or match[2]).upper() for match in _WORDS.letter_within.finditer(text) if not _is_denied(match)]
    alone = [match[1] for match in _WORDS.letter_alone.finditer(text) if not _is_denied(match)]
    known = [[letter for letter in letters if not ask.options or letter in ask.options] for letters in (within, alone)]
    if known[0]:
        return known[0][-1]
    return _named_option(values.fold(text), ask) or (known[1][-1] if known[1] else None)


def _is_denied(match: re.Match[str]) -> bool:
    """Whether a text denies the letter that it names: "not oxygen (A)", "option A is wrong"."""
    before = match.string[max(0, match.start() - 80) : match.start()]
    return bool(
        _WORDS.denied_before.search(before) or _WORDS.denied_after.match(match.string[match.end() : match.end() + 40])
    )


def _only_label(part: str, ask: Ask) -> str | None:
    """Find the label of an option in a text that says no other, and no other option's words."""
    folded = f" {plain(values.fold(part))} "
    said = [label for label, words in ask.options.items() if words and words == folded.strip()]
    if said and not (ask.options_first and len(ask.options[said[0]].split()) > _MAX_OPTION_WORDS):
        return said[0]
    if ask.options_first:
        letter = _WORDS.letter_only.fullmatch(part.strip())
        return letter[1].upper() if letter and letter[1].upper() in ask.options else None
    tokens = {token.strip(_EDGES + "-–—번").casefold() for token in re.split(r"[\s()（）]+", part)}
    found = set()
    for label, words in ask.options.items():
        numbered = label.isdigit() and re.search(rf"(?<![0-9.]){label}(?![0-9.])", part[:MAX_SENTENCE])
        named = words and (f" {words} " in folded or (unspaced(words) and words in folded))
        if label.casefold() in tokens or numbered or named:
            found.add(label)
    return found.pop() if len(found) == 1 else None


def read_yes_no(text: str, ask: Ask, *, asked: bool = False) -> str | None:
    """Read yes or no off a cleaned text.

    Args:
        text: The text.
        ask: What was asked.
        asked: True if yes and no are known to be the answers; else only a bare yes or no counts.

    Returns:
        `"yes"` or `"no"`; None where it says neither, both, or more than that ("yes, but ...").
    """
    text = final_part(text)
    part = unlabelled(unheaded((marked(text) or [text])[0]), ask)
    sentence = values.fold(first_sentence(values.unlatex(part))[:MAX_SENTENCE])
    assured = _WORDS.assures.match(sentence)
    sentence = sentence[assured.end() :] if assured else sentence
    words = sentence.split()
    if not words:
        return None
    for count in (3, 2, 1):
        head = " ".join(words[:count])
        verdict = yes_no(head.strip(_EDGES)) if len(words) >= count else None
        if verdict is None:
            continue
        rest = sentence[len(head) :]
        ends = head[-1:] in _EDGES or not rest.strip() or not rest.strip(_EDGES + " ")
        if head.rstrip("*_`") == "no." and rest.strip()[:1].isdigit():
            return None  # "No. 5"
        after = " ".join(sentences_of(part)[1:2])[:MAX_SENTENCE].casefold()
        qualified = _WORDS.qualifies.match(rest) is not None and not _only_repeats(rest, ask)
        if qualified or _WORDS.qualifies_later.match(after) or (head == "no" and _WORDS.no_as_word.match(rest)):
            return None
        if not (asked or ask.yes_no):
            restates = all(word in ask.words for word in plain(rest).split() if word not in {"it", "is", "does"})
            return _verdict(verdict) if not rest.strip(_EDGES + " ") or (ends and restates) else None
        if ends or not {"one", "1", "matter"} & {bare(words[count]) if len(words) > count else ""}:
            return _verdict(verdict)
    if not (asked or ask.yes_no):
        return None
    if not ask.negated and (restated := _restated(sentence, ask)):
        return restated
    unspaced = re.match(r"[^\x00-\x7f]{1,6}(?=[,.!。，！、،؛\s])", sentence)
    if unspaced and (verdict := yes_no(unspaced[0])) is not None:
        return _verdict(verdict)
    last = yes_no(bare(words[-1]))
    told = {yes_no(bare(word)) for word in words} - {None}
    denied = set(words[:-1]) & (NEGATIONS - {"no"})
    return _verdict(last) if len(told) == 1 and not denied else None


def _restated(sentence: str, ask: Ask) -> str | None:
    """Read "Paris is the capital of France", asked whether it is, as yes, and the same with one "not" as no."""
    words = content_words(sentence)
    said = [word for word in words if word not in NEGATIONS]
    if len(said) < 2 or tuple(map(stem, said)) != ask.content or len(words) - len(said) > 1:
        return None
    return "yes" if len(said) == len(words) else "no"


def read_choice(text: str, ask: Ask) -> str | None:
    """Find the one offered alternative that a cleaned text takes."""
    if not ask.choices:
        return None
    text = final_part(text)
    parts = marked(text)
    part = values.unlatex(unlabelled(unheaded(parts[0] if parts else text), ask))
    whole = plain(values.fold(part[:MAX_SENTENCE]))
    if whole in ask.choices:
        return whole
    sentences = sentences_of(part[: 4 * MAX_SENTENCE])
    if not sentences or len(part) > 4 * MAX_SENTENCE:
        return None
    if ask.foreign or len(sentences) > 1:
        sentences = [_WORDS.ending.sub("", sentence) for sentence in sentences]
    taken = [_taken(values.fold(uncontracted(sentence)), ask) for sentence in sentences]
    said = [choice for choice in taken if choice is not None]
    if not said or len(set(said)) != 1:
        return None
    return said[0] if taken[0] is not None or taken[-1] is not None else None


def _only_repeats(text: str, ask: Ask) -> bool:
    return all(word in ask.words for word in plain(text).split())


def _verdict(is_yes: bool | None) -> str | None:
    return None if is_yes is None else "yes" if is_yes else "no"


def _taken(sentence: str, ask: Ask) -> str | None:
    if _WORDS.undecided.search(sentence) or sentence.endswith("?"):
        return None
    asserted: list[tuple[str, bool, bool]] = []  # choice, whether its clause concludes, whether it answers as asked
    start, concludes = 0, False
    for end in [*_WORDS.clause_end.finditer(sentence), None]:
        clause = sentence[start : end.start() if end else len(sentence)].strip()
        if clause and not _WORDS.concedes.match(clause):
            asserted += [(choice, concludes, _answers_as_asked(clause, ask)) for choice in _asserted(clause, ask)]
        if end is None:
            break
        concludes = end[0].strip() in _CONCLUDES
        start = end.end()
    for wanted in ([a for a in asserted if a[1]], [a for a in asserted if a[2]], asserted):
        choices = {choice for choice, _, _ in wanted}
        if len(choices) == 1:
            return None if _contradicts(sentence, wanted, ask) else choices.pop()
        if choices and wanted is not asserted:
            return None
    return None


def _asserted(clause: str, ask: Ask) -> list[str]:
    """List the alternatives that a clause names and does not deny; one within another's words gives way to it."""
    said = f" {plain(clause)} "
    found = []
    for choice in ask.choices:
        at = said.find(f" {choice} ") if choice.isascii() or not unspaced(choice) else said.find(choice)
        longer = [
            other for other in ask.choices if other != choice and f" {choice} " in f" {other} " and f" {other} " in said
        ]
        if at < 0 or longer:
            continue
        before = said[:at].strip()
        if ask.foreign and (than := _WORDS.than_elsewhere.search(before)):
            if not _compares_as_asked(before[: than.start()], ask):
                return []
            continue
        if (
            not _WORDS.denies.search(before)
            and not re.search(r"\bnot\b", before[-30:])
            and not _concedes_before(before)
        ):
            found.append(choice)
    return found


def _compares_as_asked(before: str, ask: Ask) -> bool:
    """Whether a comparison in another language than English is the one that the query asks for."""
    compared = before.split()[-1:]
    asked = {word[:_ROOT] for word in ask.words}
    return bool(compared) and compared[0][:_ROOT] in asked and not (set(before.split()) & _WORDS["less"]) - ask.words


def _concedes_before(before: str) -> bool:
    return bool(re.search(r"\b(?:rather than|instead of|as opposed to|compared (?:to|with)|than)\b[^,]{0,40}$", before))


def _comparatives(text: str) -> set[str]:
    return {word for word in _WORDS.comparative.findall(text) if word not in _WORDS["not_comparative"]}


def _answers_as_asked(clause: str, ask: Ask) -> bool:
    return bool(_comparatives(clause) & ask.words)


def _contradicts(sentence: str, wanted: list[tuple[str, bool, bool]], ask: Ask) -> bool:
    """Whether the sentence compares the other way: "9.11 is smaller", asked which is bigger."""
    asked = _comparatives(" ".join(ask.words))
    if not asked or any(concludes or as_asked for _, concludes, as_asked in wanted):
        return False
    return bool({stem(word) for word in _comparatives(sentence)} - {stem(word) for word in asked})


def _letter(text: str, ask: Ask) -> str | None:
    """Read the letter that a text begins with, unless it is a word ("A dog", "I think") or no option."""
    match = letter_of_option(text)
    if not match:
        return None
    letter, after = match["letter"], match["after"]
    known = letter.upper() in ask.options if ask.options else True
    ends = bool(_WORDS.letter_ends.match(after)) or not after
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
    denied = longest and re.search(rf"\bnot (?:a |an |the )?{re.escape(named[longest[0]][:80])}", said)
    return longest[0] if len(longest) == 1 and not denied else None
