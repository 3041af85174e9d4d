"""Judges: an equivalence judge that says what a function says, so that what a test sees comes from all that is not the judge."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage
from typing_extensions import override

from langchain_rlfocal.chat_models.equivalence import OPPOSITES, pair_of, shown_pairs
from langchain_rlfocal.testing.doubles import DoubleChatModel, Reply


class JudgingChatModel(DoubleChatModel):
    """A chat model for `equivalence=`, which calls two texts the same where a function does.

    Example:
        ```python
        judge = JudgingChatModel(same=lambda a, b: a.lower() == b.lower())
        model = RLFocalChatModel(members=members, equivalence=judge)
        ```
    """

    same: Callable[[str, str], bool]
    """Tells whether two texts are the same, in the order in which they are shown; may also raise."""

    model_name: str = "judge"
    """Name in traces and in `response_metadata`."""

    @property
    def _llm_type(self) -> str:
        return "rlfocal-judging"

    @override
    def _answer(self, messages: Sequence[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]) -> Reply:
        verdicts = {
            name: "same" if pair_of(a, b) != OPPOSITES and self.same(a, b) else "different"
            for name, (a, b) in shown_pairs(messages).items()
        }
        return json.dumps(verdicts)
