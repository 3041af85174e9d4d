"""Options: how a member scores the options of a multiple-choice question, where its reply tells.

A member that reports log-probabilities in OpenAI's form, with the alternatives to each token (`top_logprobs`), has scored
the other options too when it wrote its letter. What is not clear is not read, and nothing here raises.
"""

import math
from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage

from langchain_rlfocal.answers.reading import read_query

_EDGES = " \t\n\"'`*_()[]{}.,:;$"


def options_of(query: str) -> frozenset[str]:
    """List the letters of the options that a query offers; empty where it offers none."""
    ask = read_query(query)
    return frozenset() if ask.options_first else frozenset(ask.options)


def option_probs_of(message: AIMessage, answer: str | None, *, options: frozenset[str]) -> dict[str, float] | None:
    """Read the probability of each option off the token that names the answer.

    That token is the last of the reply that is an option's letter and nothing else. Tokens that differ by a space or a
    bracket around the letter count together.

    Args:
        message: The member's reply.
        answer: Its canonical answer.
        options: The options' letters.

    Returns:
        Probabilities by option, of those among the reported alternatives. None where there are fewer than two, or where the
        token names another option than the answer, or the answer is not the most probable.
    """
    if answer is None or answer not in options:
        return None
    reported = message.response_metadata.get("logprobs")
    tokens = reported.get("content") if isinstance(reported, Mapping) else None
    for token in reversed(tokens if isinstance(tokens, list) else []):
        letter = _letter(token, options)
        if letter is not None:
            probs = _alternatives(token, options) if letter == answer else {}
            return probs if len(probs) > 1 and probs.get(answer) == max(probs.values()) else None
    return None


def _letter(token: Any, options: frozenset[str]) -> str | None:
    text = token.get("token") if isinstance(token, Mapping) else None
    letter = text.strip(_EDGES) if isinstance(text, str) else ""
    return letter if letter in options else None


def _alternatives(token: Mapping[str, Any], options: frozenset[str]) -> dict[str, float]:
    """Add up the probabilities of a token's alternatives by the option that they name."""
    alternatives = token.get("top_logprobs")
    probs: dict[str, float] = {}
    for alternative in alternatives if isinstance(alternatives, list) else []:
        letter = _letter(alternative, options)
        logprob = alternative.get("logprob") if letter is not None else None
        if letter is not None and isinstance(logprob, int | float) and logprob <= 0:
            probs[letter] = min(probs.get(letter, 0.0) + math.exp(logprob), 1.0)
    return probs
