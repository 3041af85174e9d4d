"""JSON texts: which JSON a text gives for its answer, among drafts, examples and thoughts.

What is between marks of thinking never counts, nor what is before a mark that only ends it. Of several objects
the last is the best, since members correct themselves; a part of an object that breaks off is no object, and what is
before it is a draft.
"""

import json
import re
from typing import Any

_MAX_FAILURES = 200  # each may read the whole text once; after so many the end of the text alone is looked at
_TAIL_CHARS = 10_000
_PLACE = re.compile(
    r"""(?P<mark>
        [<\[◁]\s{0,9}[|/]{0,3}\s{0,9}(?:seed:|begin_of_|start_of_|start_|end_of_|end_)?
        (?:think|thinking|thought|thoughts|reasoning|reflection|scratchpad)(?:_start|_end)?\b[^<>\[\]◁▷]{0,80}[>\]▷]
      | <\|?channel\|?>\s{0,9}(?:analysis|commentary|thought|final)\b
      | <channel\|>
    )
    | (?P<object>\{)\s{0,999}["}]
    | (?P<list>\[)\s{0,999}[\[{"]""",
    re.IGNORECASE | re.VERBOSE,
)
_ENDS = re.compile(r"/|end|final|<channel\|>", re.IGNORECASE)


def json_in(text: str, decoder: json.JSONDecoder | None = None) -> list[Any]:
    """Find the JSON in a text, the best first: what the text is as a whole, else its objects from the last, then its lists.

    Args:
        text: The text, however long; the time is linear in its length.
        decoder: Reads JSON; by default as Python does, with control characters allowed in strings.
    """
    decoder = decoder or json.JSONDecoder(strict=False)
    text = text.strip()
    try:
        value, end = decoder.raw_decode(text)
        if end == len(text):
            return [value]
    except (ValueError, RecursionError):
        pass
    found: list[Any] = []
    thinking = at = failures = 0
    while place := _PLACE.search(text, at):
        at = place.end()
        if mark := place["mark"]:
            is_end = _ENDS.search(mark) is not None
            if is_end and (not thinking or "final" in mark):
                found, thinking = [], 0
            else:
                thinking += -1 if is_end else 1
        elif not thinking:
            try:
                value, at = decoder.raw_decode(text, place.start())
                found.append(value)
            except (ValueError, RecursionError) as error:
                failures += 1
                # What was opened on the way to the fault has the same fault, or is a part of what has it.
                at = max(at, getattr(error, "pos", at))
                if at >= len(text) or str(error).startswith("Unterminated"):
                    found = []
                if failures == _MAX_FAILURES:
                    text, at = text[max(at, len(text) - _TAIL_CHARS) :], 0
    found.reverse()
    # An empty object is in code and examples more often than for an answer.
    return sorted(found, key=lambda value: 2 if not value else not isinstance(value, dict))
