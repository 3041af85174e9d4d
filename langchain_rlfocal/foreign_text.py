"""Foreign text: what a provider, a member or a file wrote, made fit to show.

For error messages, metadata and terminals. It changes no answer, and promises no more than it can: a secret that looks like
prose passes.
"""

import re

# Every repetition is bounded or ends its pattern, so that masking takes time linear in the text.
_NAMED_SECRET = re.compile(
    r"""(?<![a-z0-9]) (?P<name> api[-_ ]?key (?:\ provided)? | access[-_]?token | key | token | secret | password)
        (?P<mark> \\?["'] \s{0,4} [:=] \s{0,4}             # a quoted name: JSON, or how Python shows a mapping
                | \s{0,4} = \s{0,4}                        # a query string
                | \s{0,4} : \s{0,4} (?= \S{0,63} \d ) )    # a header; in prose a colon is followed by words
        (?: (?P<quote> \\?["'] ) [^"'\\]+ | [^\s"'&,;(){}\[\]\\]+ )""",
    re.IGNORECASE | re.VERBOSE,
)
_CREDENTIALS = re.compile(
    r"""(?P<scheme> \b (?i: authorization ) [\\"']{0,2} \s{0,4} [:=] \s{0,4} [\\"']{0,2} (?i: bearer | basic ) \s{1,4}
                  | \b (?i: bearer | basic ) \s{1,4}        # "Basic authentication" is prose, a long mixture is not
                    (?= [\w.~+/-]{0,63} [\d=~+/] | [\w-]{1,63} [A-Z] | [\w.~+/-]{20} ) )
        [\w.~+/=*-]{4,}""",
    re.VERBOSE,
)
_BARE_KEY = re.compile(r"(?<![A-Za-z0-9])(?P<vendor>sk-|AIza)[\w*-]{8,}")


def masked(text: str) -> str:
    """Hide keys, tokens and passwords in what a provider says; the rest stays as it is."""
    text = _CREDENTIALS.sub(r"\g<scheme>***", text)
    text = _BARE_KEY.sub(r"\g<vendor>***", text)
    return _NAMED_SECRET.sub(lambda found: f"{found['name']}{found['mark']}{found['quote'] or ''}***", text)


def printable(text: str) -> str:
    """Put text on one line, with a space for each character that could steer the reader's terminal."""
    return "".join(char if char.isprintable() else " " for char in text)
