"""Faults through the ensemble: whatever one member does, the right answer or a typed error, and nothing left behind."""

import asyncio
import threading
import time
from functools import partial

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import ModelError
from pydantic import SecretStr

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.chat_models import ensemble as ensemble_module
from langchain_rlfocal.errors import BudgetError, DeadlineError, EnsembleError
from langchain_rlfocal.execution import RetryPolicy
from langchain_rlfocal.testing import ScriptedPolicy
from support_calls import collect
from support_fault_server import Fault

pytestmark = pytest.mark.timeout(60)

QUESTION = "What is the capital of Portugal? Answer in one short sentence."
ANSWERS = {"best": "It is Lisbon.", "good": "It is Lisbon.", "wrong": "It is Porto."}
WAYS = ("invoke", "ainvoke", "stream", "astream")
SLOW_WAYS = ("invoke", "astream")
"""One in threads and one in tasks, for what really takes time; in virtual time the unit tests go all ways."""

STUCK = Fault("never_ends", token_pause_s=0.05)
PATIENCE_S = 1.5
"""What members get where one of them is to be too late: long enough for the others on a machine that is busy."""

DROPPED, ERROR = "OpenAIConnectionError", "OpenAIAPIError"
OVERFLOW = Fault("status", status=400, code="context_length_exceeded")

# Faults of the member that is asked first, what its failed attempts are called, and whether it answers in the end.
CASES = {
    "ok": ([], [], True),
    "slow": ([Fault(token_pause_s=0.02)], [], True),
    "too late": ([Fault(delay_s=30)] * 2, ["timeout"] * 2, False),
    "too late once": ([Fault(delay_s=30)], ["timeout"], True),
    "drop before": ([Fault("drop_before")] * 3, [DROPPED] * 3, False),
    "drop at": ([Fault("drop_at")] * 3, [DROPPED] * 3, False),
    "drop at once": ([Fault("drop_at")], [DROPPED], True),
    "drop after": ([Fault("drop_after")] * 3, [DROPPED] * 3, False),
    "truncated": ([Fault("truncated")], ["JSONDecodeError"], False),
    "429": ([Fault("status", status=429, retry_after_s=0.05)], ["OpenAIRateLimitError"], True),
    "500": ([Fault("status")] * 3, [ERROR] * 3, False),
    "500 once": ([Fault("status")], [ERROR], True),
    "different ones": ([Fault("status", status=503), Fault("drop_at")], [ERROR, DROPPED], True),
    "400": ([Fault("status", status=400)], ["OpenAIInvalidRequestError"], False),
    "overflow": ([OVERFLOW], ["OpenAIContextOverflowError"], False),
    "401": ([Fault("status", status=401)], ["OpenAIAuthenticationError"], False),
    "random bytes": ([Fault("random_bytes")], ["UnicodeDecodeError"], False),
    "web page": ([Fault("web_page")], ["ValueError"], False),
    "never ends": ([STUCK] * 2, ["timeout"] * 2, False),
}
TIMED_OUT = {"too late", "never ends"}
"""Two attempts that cost `PATIENCE_S` each say what three would."""
SPOKEN = {"drop after", "truncated", "never ends"}
"""Faults after the first token: in a stream that is passed on, nobody can stand in."""


class Watch(BaseCallbackHandler):
    """Sees the members' runs and what came of each member."""

    run_inline = True

    def __init__(self):
        self.results, self.runs = [], []

    def on_custom_event(self, name, data, **_):
        if name == "rlfocal_candidate":
            self.results.append(data)

    def on_chat_model_start(self, *_, run_id, metadata=None, **__):
        if (metadata or {}).get("rlfocal_member"):
            self.runs.append((metadata["rlfocal_member"], metadata["rlfocal_attempt"], run_id))

    def failed(self, member):
        """The kinds of a member's failed attempts, in order, as they are recorded."""
        [result] = [result for result in self.results if result["member"] == member]
        return [row["kind"] for row in [*result["retries"], result] if "kind" in row]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Retries wait for hundredths of a second; what a provider asks for is still waited for."""
    rule = partial(RetryPolicy, initial_s=0.01, max_s=0.02, jitter_s=0.0)
    monkeypatch.setattr(ensemble_module, "RetryPolicy", rule)


def ensemble(server, *teams, **settings):
    """Ask these teams in turn, until somebody has answered."""
    members = {name: server.model(name) for name in ANSWERS}
    policy = ScriptedPolicy(teams=teams or [[name] for name in ANSWERS], members=tuple(ANSWERS))
    return RLFocalChatModel(members=members, policy=policy, max_rounds=1, member_callbacks="all", **settings)


def start(serve, faults):
    return serve(faults, answer=lambda name, _question: ANSWERS[name])


def ask(model, way, watch):
    """Return the text, or what was streamed of it with the error that broke it off; no task may be left."""
    config, pieces = {"callbacks": [watch]}, []

    async def aask():
        try:
            if way == "ainvoke":
                pieces.append((await model.ainvoke(QUESTION, config)).text)
            else:
                await collect(model.astream(QUESTION, config), pieces)  # what came before an error counts
        finally:
            assert asyncio.all_tasks() == {asyncio.current_task()}

    try:
        if way == "invoke":
            pieces.append(model.invoke(QUESTION, config).text)
        elif way == "stream":
            for chunk in model.stream(QUESTION, config):
                pieces.append(chunk.text)  # noqa: PERF401  # what came before an error counts
        else:
            asyncio.run(aask())
    except EnsembleError as error:
        return "".join(pieces), error
    return "".join(pieces), None


def end_of(server):
    """Close the server; the threads that nobody waited for end with it, and so do all connections."""
    server.close()
    for thread in threading.enumerate():
        if thread.name.startswith("rlfocal:"):
            thread.join(5)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("rlfocal")] == []
    assert server.open_connections == 0
    assert "open" not in [request.ended for request in server.received]


@pytest.mark.parametrize(
    ("name", "way"),
    [(name, way) for name in CASES for way in (SLOW_WAYS if name in {*TIMED_OUT, "too late once"} else WAYS)],
)
def test_one_member_fails(serve, name, way):
    """The member's attempts are those that the server saw, each in a run of its own, and somebody answers."""
    faults, kinds, answers = CASES[name]
    breaks = way in {"stream", "astream"} and name in SPOKEN
    kinds = kinds[:1] if breaks else kinds
    server, watch = start(serve, {"best": faults}), Watch()
    model = ensemble(server, timeout=PATIENCE_S, max_retries=1 if name in TIMED_OUT else 2)
    text, error = ask(model, way, watch)
    if breaks:
        assert isinstance(error, EnsembleError)
        assert isinstance(error, ModelError)
        assert text.startswith("It ")
        assert list(error.failures) == ["best"]
    else:
        assert (text, error) == ("It is Lisbon.", None)
    assert watch.failed("best") == kinds
    num_attempts = len(kinds) + answers
    asked = [("best", attempt) for attempt in range(1, num_attempts + 1)]
    if not answers and not breaks:
        assert watch.failed("good") == []
        asked.append(("good", 1))
    assert [(request.model, request.attempt) for request in server.received] == asked
    assert [(member, attempt) for member, attempt, _ in watch.runs] == asked
    assert len({run_id for *_, run_id in watch.runs}) == len(asked)
    assert model.spent.calls == len(asked)
    assert model.shared_state.ledger.reserved.calls == 0
    is_async = way in {"ainvoke", "astream"}
    if is_async or "timeout" not in kinds:
        server.wait_until(lambda: server.open_connections == 0)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("rlfocal:")]
    if is_async and name in TIMED_OUT:
        # The server counts a connection closed a moment before it says how the request ended.
        server.wait_until(lambda: "open" not in [request.ended for request in server.received])
        assert [request.ended for request in server.received][: len(kinds)] == ["left"] * len(kinds)
    end_of(server)


@pytest.mark.parametrize("way", WAYS)
def test_json_of_a_wrong_shape_is_no_answer(serve, way):
    """Whole, it cannot be read; as a stream it is one without a word. Either way, another stands in."""
    server, watch = start(serve, {"best": [Fault("wrong_shape")]}), Watch()
    assert ask(ensemble(server), way, watch) == ("It is Lisbon.", None)
    assert watch.failed("best") == ["empty" if "stream" in way else "TypeError"]
    assert [request.model for request in server.received] == ["best", "good"]
    end_of(server)


@pytest.mark.parametrize("way", WAYS)
def test_all_members_fail(serve, way):
    server, watch = start(serve, dict.fromkeys(ANSWERS, [Fault("status", status=503)] * 3)), Watch()
    text, error = ask(ensemble(server), way, watch)
    assert text == ""
    assert list(error.failures) == list(ANSWERS)
    assert error.is_retryable
    assert isinstance(error, ModelError)
    assert sorted(request.attempt for request in server.received) == sorted([1, 2, 3] * 3)
    end_of(server)


@pytest.mark.parametrize("way", WAYS)
def test_a_client_of_a_member_that_retries_by_itself_does_not(serve, way):
    """Its two retries would make nine requests of three attempts."""
    server, watch = start(serve, {"best": [Fault("status")] * 9}), Watch()
    members = {"best": server.model("best", max_retries=2), "good": server.model("good")}
    policy = ScriptedPolicy(teams=[["best"], ["good"]], members=tuple(members))
    model = RLFocalChatModel(members=members, policy=policy, max_rounds=1)
    assert ask(model, way, watch) == ("It is Lisbon.", None)
    assert [request.model for request in server.received] == ["best"] * 3 + ["good"]
    assert len(watch.failed("best")) == 3
    end_of(server)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("asked_s", "other"), [(0.3, "best"), (30, "good")])
def test_what_a_provider_asks_for_is_waited_for_but_not_beyond_the_deadline(serve, way, asked_s, other):
    """Three tenths of a second are there; where half a minute is asked for, another member is asked at once."""
    server, watch = start(serve, {"best": [Fault("status", status=429, retry_after_s=asked_s)]}), Watch()
    began_s = time.perf_counter()
    assert ask(ensemble(server, deadline_s=15), way, watch) == ("It is Lisbon.", None)
    took_s = time.perf_counter() - began_s
    assert (took_s >= asked_s) == (other == "best")
    assert took_s < 15
    assert watch.failed("best") == ["OpenAIRateLimitError"]
    assert [request.model for request in server.received] == ["best", other]
    end_of(server)


@pytest.mark.parametrize("way", SLOW_WAYS)
def test_the_deadline_cuts_one_of_three(serve, way):
    """Two answers have come: they are enough, unless all three are wanted."""
    server, watch = start(serve, {"best": [STUCK] * 2}), Watch()
    model = ensemble(server, list(ANSWERS), deadline_s=PATIENCE_S, early_commit=False)
    assert ask(model, way, watch) == ("It is Lisbon.", None)
    assert watch.failed("best") == ["deadline"]
    text, error = ask(model.model_copy(update={"min_candidates": 3}), way, Watch())
    assert text == ""
    assert isinstance(error, DeadlineError)
    assert sorted(request.model for request in server.received) == sorted([*ANSWERS] * 2)
    assert model.spent.calls == 6
    end_of(server)


@pytest.mark.parametrize("way", WAYS)
def test_a_budget_that_is_spent_sends_nothing(serve, way):
    """Four calls for two answers of three: the second answer is that of the one who could still be asked."""
    server = start(serve, {})
    model = ensemble(server, ["good", "best", "wrong"], budget={"max_calls": 4}, early_commit=False)
    for refused in (0, 2):
        watch = Watch()
        assert ask(model, way, watch) == ("It is Lisbon.", None)
        assert sum(result.get("kind") == "budget" for result in watch.results) == refused
    text, error = ask(model, way, Watch())
    assert text == ""
    assert isinstance(error, BudgetError)
    assert len(server.received) == model.spent.calls == 4
    end_of(server)


def test_a_breaker_rests_a_member_and_probes_it(serve):
    """Two attempts fail and open it; then nobody asks it until its rest is over, and its probe closes it."""
    now = [0.0]
    server = start(serve, {"best": [Fault("status")] * 2})
    members = {name: server.model(name) for name in ANSWERS}
    model = RLFocalChatModel(
        members=members, clock=lambda: now[0], max_retries=0, breaker_failures=2, breaker_recovery_s=10.0
    )
    steps = [(0.0, "closed", 1), (1.0, "open", 2), (2.0, "open", 2), (10.9, "open", 2), (11.0, None, 3)]
    for now[0], status, num_asked in steps:
        assert model.invoke(QUESTION).text == "It is Lisbon."
        state = model.breakers.get("best")
        assert (state and state.state) == status
        assert sum(request.model == "best" for request in server.received) == num_asked
    end_of(server)


@pytest.mark.parametrize("way", WAYS)
def test_a_key_that_a_provider_repeats_is_in_no_error(serve, way):
    key = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789"
    server = start(serve, {name: [Fault("status", status=401)] for name in ANSWERS})
    members = {name: server.model(name, api_key=SecretStr(key)) for name in ANSWERS}
    watch = Watch()
    _, error = ask(RLFocalChatModel(members=members), way, watch)
    assert len(server.received) == 3
    assert all("Incorrect API key" in reason for reason in error.failures.values())
    assert key not in f"{error} {error.failures} {watch.results}"
    end_of(server)
