"""Bounds of tokens: the most that a response can have, as far as anybody says."""

from typing import Any

import pytest

from langchain_rlfocal.execution.tokens import ASSUMED_OUTPUT_TOKENS, output_bound
from langchain_rlfocal.testing import ScriptedChatModel


class Model(ScriptedChatModel):
    script: Any = ()
    max_tokens: int | None = None
    max_output_tokens: int | None = None
    n: int | None = None


def test_what_the_call_says_goes_before_the_model_and_the_model_before_its_profile():
    profile = {"max_output_tokens": 300}
    assert output_bound(Model(), {}) == ASSUMED_OUTPUT_TOKENS == 4096
    assert output_bound(Model(profile=profile), {}) == 300
    assert output_bound(Model(profile=profile, max_output_tokens=250), {}) == 250
    assert output_bound(Model(profile=profile, max_tokens=200), {}) == 200
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "num_predict"):
        assert output_bound(Model(profile=profile, max_tokens=200), {name: 7}) == 7


@pytest.mark.parametrize("value", [None, True, "9", 9.0, 0, -1])
def test_what_is_no_number_of_tokens_says_nothing(value):
    assert output_bound(Model(max_tokens=200), {"max_tokens": value}) == 200
    unchecked = Model().model_copy(update={"profile": {"max_output_tokens": value}, "max_tokens": value})
    assert output_bound(unchecked, {}) == ASSUMED_OUTPUT_TOKENS


def test_several_responses_are_bound_together():
    assert output_bound(Model(max_tokens=10), {"n": 3}) == 30
    assert output_bound(Model(max_tokens=10, n=2), {}) == 20
    assert output_bound(Model(max_tokens=10, n=2), {"n": 1}) == 10
    assert output_bound(Model(max_tokens=10, n=2), {"n": None}) == 20
