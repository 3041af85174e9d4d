"""Sessions between processes: what one worker sent, another expects to be held, by a real server."""

import pytest
from langchain_core.messages import HumanMessage, SystemMessage

from langchain_rlfocal import PoolMember, RLFocalChatModel
from langchain_rlfocal.execution import SharedState
from langchain_rlfocal.testing import CachingChatModel, ScriptedPolicy
from support_store import Server

PRICES = {"input_usd_per_mtok": 2.0, "cached_input_usd_per_mtok": 0.2, "output_usd_per_mtok": 8.0}
HISTORY = [SystemMessage("You are careful. " * 400), HumanMessage("Is it so?")]


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.kill()


def worker(server, providers, timeout_s):
    """A model with a connection of its own; the members' providers are the same for all."""
    members = [PoolMember(name, model, **PRICES) for name, model in providers.items()]
    policy = ScriptedPolicy([["ann"]], ("ann", "bob"))
    shared = SharedState.at(server.url(timeout_s=timeout_s))
    return RLFocalChatModel(members=members, policy=policy, shared_state=shared, max_team=1)


async def test_what_one_worker_sent_is_expected_by_another(server):
    providers = {name: CachingChatModel(script=["It is."], model_name=name) for name in ("ann", "bob")}
    here, there = (worker(server, providers, timeout_s) for timeout_s in (0.9, 1.1))
    try:
        first = here.invoke(HISTORY, session="s")
        history = [*HISTORY, first, HumanMessage("Still?")]
        second = await there.ainvoke(history, session="s")
        facts = second.response_metadata["rlfocal"]["session"]["members"]["ann"]
        assert facts["held_tokens"] == facts["cached_tokens"] == first.usage_metadata["input_tokens"] > 1024
        stranger = there.invoke(history, session="t").response_metadata["rlfocal"]["session"]["members"]["ann"]
        assert stranger["held_tokens"] == 0
        third = here.invoke([HumanMessage("Summary: it is.")], session="s", sticky="session")
        assert third.response_metadata["rlfocal"]["session"]["member"] == "ann"
    finally:
        for model in (here, there):
            model.shared_state.close()
