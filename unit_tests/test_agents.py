"""Agents: the ensemble where LangChain and LangGraph expect one chat model.

Members are doubles that obey tools and schemas; what they are asked is what `asked` holds.
"""

import asyncio
import copy

import pytest
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel

from langchain_rlfocal import PoolMember, RLFocalChatModel
from langchain_rlfocal.execution import Session
from langchain_rlfocal.records import Selection
from langchain_rlfocal.testing import CachingChatModel, ScriptedPolicy
from support_history import THINKING
from support_schema_model import SchemaChatModel
from support_tools import weather

pytest.importorskip("langchain.agents", reason="langchain is optional")
from langchain.agents import create_agent
from langchain.agents.middleware import (
    ModelFallbackMiddleware,
    SummarizationMiddleware,
)
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

QUESTION = "What is the weather in Oslo?"
ANSWER = "weather says: sunny in Oslo"
ABOUT = "Write of the person Ada, 36."
THREAD = {"configurable": {"thread_id": "1"}}


def population(city: str) -> str:
    """Count the people."""
    return f"many in {city}"


def obeying(*names, **fields):
    return {name: SchemaChatModel(model_name=name, **fields) for name in names or ("ann", "bob", "cid")}


def model_of(members=None, *rounds, **fields):
    """An ensemble whose policy asks these teams, round by round; without rounds, everyone at once. Nobody is asked again."""
    members = members or obeying()
    policy = ScriptedPolicy(rounds or (tuple(members),), tuple(members))
    fields = {"max_team": len(members), "max_retries": 0, **fields}
    return RLFocalChatModel(members=members, policy=policy, **fields)


def asking(text=QUESTION, *before):
    return {"messages": [*before, HumanMessage(text)]}


@pytest.fixture(params=["invoke", "ainvoke"])
def call(request):
    """Run an agent, in threads or on the event loop; both must come to the same."""

    async def run(agent, given, config=None):
        if request.param == "invoke":
            return await asyncio.to_thread(agent.invoke, given, config)
        return await agent.ainvoke(given, config)

    return run


def kinds_of(messages):
    return [message.type for message in messages]


def assert_paired(messages):
    """Each call has its result right behind it, in the order of the calls, and no id comes twice."""
    ids = [c["id"] for message in messages if isinstance(message, AIMessage) for c in message.tool_calls]
    assert ids == [message.tool_call_id for message in messages if isinstance(message, ToolMessage)]
    assert len(set(ids)) == len(ids)


# ---- tools


async def test_an_agent_calls_a_tool_and_answers_from_its_result(call):
    members = obeying()
    result = await call(create_agent(model_of(members), [weather]), asking())
    assert kinds_of(result["messages"]) == ["human", "ai", "tool", "ai"]
    assert_paired(result["messages"])
    assert result["messages"][-1].text == ANSWER
    assert [len(member.asked) for member in members.values()] == [2, 2, 2]


async def test_a_conversation_of_several_turns_and_calls_goes_on_from_its_checkpoint(call):
    members = obeying()
    agent = create_agent(
        model_of(members), [weather, population], checkpointer=InMemorySaver(), system_prompt="Be short."
    )
    await call(agent, asking(), THREAD)
    result = await call(agent, asking("Use weather and population for Oslo."), THREAD)
    assert kinds_of(result["messages"]) == ["human", "ai", "tool", "ai", "human", "ai", "tool", "tool", "ai"]
    assert_paired(result["messages"])
    assert result["messages"][-1].text == f"{ANSWER}\npopulation says: many in Oslo"
    for member in members.values():
        last = member.asked[-1].messages
        assert last[0] == SystemMessage("Be short.")
        assert_paired(last)
        assert all(m.response_metadata == {} for m in last if isinstance(m, AIMessage))


# ---- structured output


class Person(BaseModel):
    """A person."""

    name: str
    age: int


NATIVE = {"structured_output": True, "tool_calling": True}


@pytest.mark.parametrize(
    ("strategy", "profile", "kinds"),
    [
        (lambda schema: schema, None, ["human", "ai", "tool"]),
        (lambda schema: schema, NATIVE, ["human", "ai"]),
        (ToolStrategy, NATIVE, ["human", "ai", "tool"]),
        (ProviderStrategy, None, ["human", "ai"]),
    ],
)
async def test_an_agent_returns_an_object_the_providers_way_where_every_member_knows_it(call, strategy, profile, kinds):
    members = obeying("ann", "bob", profile=NATIVE) | {"cid": SchemaChatModel(model_name="cid", profile=profile)}
    result = await call(create_agent(model_of(members), response_format=strategy(Person)), asking(ABOUT))
    assert kinds_of(result["messages"]) == kinds
    assert result["structured_response"] == Person(name="Ada", age=36)


# ---- middleware


def lost(*_):
    raise ConnectionError("lost")


FAILING = SchemaChatModel(answers=lost)


@pytest.mark.parametrize(
    ("first", "fallback"),
    [
        (model_of({"ann": FAILING}), model_of()),
        (FAILING, model_of()),
        (model_of({"ann": FAILING, "bob": FAILING}), SchemaChatModel()),
    ],
)
async def test_an_ensemble_falls_back_and_is_fallen_back_on(call, first, fallback):
    agent = create_agent(first, [weather], middleware=[ModelFallbackMiddleware(fallback)])
    result = await call(agent, asking())
    assert result["messages"][-1].text == ANSWER
    assert_paired(result["messages"])


def talk(num_turns):
    return [m for _ in range(num_turns) for m in (HumanMessage("word " * 9), AIMessage("Yes. " * 9))]


def summarizing(model, *trigger):
    return SummarizationMiddleware(model, trigger=trigger, keep=("messages", 1), summary_prompt="Sum up: {messages}")


async def test_the_conversation_is_summarized_at_a_share_of_what_members_can_read(call):
    """Members are asked for the summary, and then read it instead of what it is of."""
    members = obeying(says="They greeted.", profile={"max_input_tokens": 400})
    model = model_of(members)
    agent = create_agent(model, middleware=[summarizing(model, "fraction", 0.5)])
    assert len((await call(agent, asking("And now?", *talk(4))))["messages"]) == 10
    result = await call(agent, asking("And now?", *talk(8)))
    assert kinds_of(result["messages"]) == ["human", "human", "ai"]
    assert result["messages"][0].text.endswith("They greeted.")
    assert [len(member.asked) for member in members.values()] == [3, 3, 3]


async def test_a_summary_that_is_too_long_for_every_member_is_asked_for_again_with_less(call):
    lengths = []

    def answers(messages, _tools):
        lengths.append(len(messages[-1].text))
        if lengths[-1] > 900:
            raise ContextOverflowError("too long")
        return "They greeted."

    model = model_of({"ann": SchemaChatModel(answers=answers)})
    agent = create_agent(model, middleware=[summarizing(model, "messages", 3)])
    result = await call(agent, asking("And now?", *talk(8)))
    assert result["messages"][0].text.endswith("They greeted.")
    assert [length > 900 for length in lengths] == [True, False, False]


async def test_tokens_that_members_took_together_are_no_reason_to_summarize(call):
    """Each of three members read some 130 tokens of 200: the sum on the message is of calls, not of one context."""
    model = model_of(obeying(profile={"max_input_tokens": 200}))
    agent = create_agent(model, middleware=[summarizing(model, "fraction", 0.9)], checkpointer=InMemorySaver())
    result = await call(agent, asking("word " * 100), THREAD)
    assert result["messages"][-1].usage_metadata["total_tokens"] > 200
    assert len((await call(agent, asking("And now?"), THREAD))["messages"]) == 4


# ---- streams


async def stream_of(agent, stream, **kwargs):
    if stream == "stream":
        return list(agent.stream(asking(), **kwargs))
    return [item async for item in agent.astream(asking(), **kwargs)]


def doubts(messages, _tools):
    return "Rain." if isinstance(messages[-1], ToolMessage) else None


WRITTEN = {"synthesizer": SchemaChatModel(says="It is dry."), "synthesize_below": 1.0}


@pytest.mark.parametrize(
    ("stream", "version", "mode"), [("stream", "v1", "tracers"), ("astream", "v2", "all"), ("stream", "v2", "all")]
)
@pytest.mark.parametrize(("fields", "text"), [({}, ANSWER), ({"max_team": 1}, ANSWER), (WRITTEN, "It is dry.")])
async def test_a_stream_of_messages_holds_the_ensembles_own_tokens_once(stream, version, mode, fields, text):
    """Fused, relayed from one member, and written by a synthesizer, since one of three doubts."""
    model = model_of(obeying("ann", "bob") | obeying("cid", answers=doubts), member_callbacks=mode, **fields)
    items = await stream_of(create_agent(model, [weather]), stream, stream_mode="messages", version=version)
    chunks = [(item["data"] if version == "v2" else item)[0] for item in items]
    spoken = [chunk for chunk in chunks if chunk.type == "AIMessageChunk"]
    assert "".join(chunk.text for chunk in spoken) == text
    calls = [c for chunk in spoken for c in chunk.tool_call_chunks]
    assert [c["name"] for c in calls if c["name"]] == ["weather"]
    assert len({chunk.id for chunk in spoken}) == 2
    assert sum(chunk.usage_metadata is not None for chunk in spoken) == 2


# ---- interrupts


async def test_a_tools_interrupt_stops_the_agent_and_its_resumption_goes_on(call):
    def ask(question: str) -> str:
        """Ask a person."""
        return interrupt(question)

    agent = create_agent(model_of(), [ask], checkpointer=InMemorySaver())
    stopped = await call(agent, asking("ask Bob"), THREAD)
    assert len(stopped["__interrupt__"]) == 1
    result = await call(agent, Command(resume="blue"), THREAD)
    assert result["messages"][-1].text == "ask says: blue"
    assert_paired(result["messages"])


async def test_a_members_interrupt_is_the_agents_and_no_failure(call):
    def answers(*_):
        return f"A person says {interrupt('Which colour?')}."

    members = {"ann": SchemaChatModel(answers=answers, model_name="ann")}
    agent = create_agent(model_of(members), [weather], checkpointer=InMemorySaver())
    stopped = await call(agent, asking(), THREAD)
    assert [i.value for i in stopped["__interrupt__"]] == ["Which colour?"]
    assert kinds_of(stopped["messages"]) == ["human"]
    result = await call(agent, Command(resume="blue"), THREAD)
    assert result["messages"][-1].text == "A person says blue."


# ---- a state whose turns different members answered


class TakingTurns(ScriptedPolicy):
    """Asks one member a call, in the order given."""

    def select(self, query, candidates, failures, *, available, round_number, **_rest):
        return Selection(round_number, tuple(self.teams.pop(0)), dict.fromkeys(available, 0.5))


def thinks(messages, _tools):
    """Answer as ChatAnthropic does: thoughts, words and the call in blocks, under an id of its own."""
    if isinstance(messages[-1], ToolMessage):
        return None
    use = {"type": "tool_use", "id": "toolu|1", "name": "weather", "input": {"city": "Oslo"}}
    call = {"name": "weather", "args": {"city": "Oslo"}, "id": "toolu|1", "type": "tool_call"}
    return AIMessage([THINKING, {"type": "text", "text": "I look."}, use], tool_calls=[call], id="msg_1")


def taking_turns(*names):
    members = {"ann": SchemaChatModel(model_name="ann", answers=thinks), **obeying("bob")}
    policy = TakingTurns([[name] for name in names], tuple(members))
    return members, RLFocalChatModel(members=members, policy=policy, max_team=1)


@pytest.mark.parametrize("is_saved", [False, True])
async def test_the_same_member_gets_its_own_blocks_back_and_another_a_neutral_turn(call, is_saved):
    for second in ("ann", "bob"):
        members, model = taking_turns("ann", second)
        where = {"checkpointer": InMemorySaver(), "interrupt_before": ["tools"]} if is_saved else {}
        agent = create_agent(model, [weather], **where)
        result = await call(agent, asking(), THREAD)
        if is_saved:
            result = await call(agent, None, THREAD)
        _, ours, reply, last = result["messages"]
        _, seen, answered = members[second].asked[-1].messages
        assert ours.content == "I look."
        [made] = ours.tool_calls
        assert made["id"] == reply.tool_call_id == seen.tool_calls[0]["id"] == answered.tool_call_id != "toolu|1"
        if second == "ann":
            assert seen.content[0] == THINKING
            assert seen.content[2]["id"] == made["id"]
        else:
            assert (seen.content, seen.additional_kwargs, seen.response_metadata) == ("I look.", {}, {})
        assert last.text == ANSWER


async def test_a_state_from_elsewhere_is_made_readable_and_stays_as_it_was(call):
    """Turns of a provider's own model, ids that another refuses, and a result whose call was cut off."""
    members, model = taking_turns("bob", "bob")
    foreign = thinks([HumanMessage("?")], None)
    state = [
        ToolMessage("42", tool_call_id="gone"),
        HumanMessage(QUESTION),
        foreign,
        ToolMessage("sunny", tool_call_id="toolu|1"),
        AIMessage([{"type": "reasoning", "id": "rs_1", "summary": []}, {"type": "text", "text": "It is sunny."}]),
    ]
    before = copy.deepcopy(state)
    result = await call(create_agent(model, [weather]), asking("And now? Say it.", *state))
    assert [m.model_dump(exclude={"id"}) for m in state] == [m.model_dump(exclude={"id"}) for m in before]
    seen = members["bob"].asked[0].messages
    assert kinds_of(seen) == ["human", "ai", "tool", "ai", "human"]
    assert [m.content for m in seen] == [QUESTION, "I look.", "sunny", "It is sunny.", "And now? Say it."]
    assert_paired(seen)
    assert "|" not in seen[2].tool_call_id
    repairs = result["messages"][-1].response_metadata["rlfocal"]["repairs"]
    assert repairs == ["left out 1 tool result(s) that answer no tool call"]


# ---- a thread is a session


def counting(thread_id="1", **fields):
    """An agent whose members bill as providers with a prompt cache do, and what each answer says of its session."""
    prices = {"input_usd_per_mtok": 2.0, "cached_input_usd_per_mtok": 0.2, "output_usd_per_mtok": 8.0}

    def script(messages):
        if isinstance(messages[-1], ToolMessage):
            return f"weather says: {messages[-1].text}"
        return AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Oslo"}, "id": "1"}])

    members = [PoolMember(name, CachingChatModel(script=script, model_name=name), **prices) for name in ("ann", "bob")]
    policy = TakingTurns([[name] for name in ("ann", "bob") * 4], ("ann", "bob"))
    model = RLFocalChatModel(members=members, policy=policy, max_team=1, **fields)
    agent = create_agent(model, [weather], system_prompt="You are careful. " * 400, checkpointer=InMemorySaver())
    return agent, {"configurable": {"thread_id": thread_id}}


def steps_of(result):
    return [message.response_metadata["rlfocal"] for message in result["messages"] if message.type == "ai"]


async def test_an_agents_thread_is_its_session_and_each_member_holds_what_it_was_sent(call):
    """Ann and Bob take turns: from its second step on, each is expected to hold what it read in its first, and reports it."""
    agent, thread = counting()
    await call(agent, asking(), thread)
    steps = steps_of(await call(agent, asking("And in Oslo now? The weather."), thread))
    held = [
        step["session"]["members"][name]["held_tokens"] for step, name in zip(steps, ("ann", "bob") * 2, strict=True)
    ]
    cached = [next(iter(step["usage"].values()))["input_token_details"]["cache_read"] for step in steps]
    assert held == cached
    assert [tokens > 1024 for tokens in held] == [False, False, True, True]
    assert len({step["session"]["id"] for step in steps}) == 1
    other = steps_of(await call(agent, asking(), {"configurable": {"thread_id": "2"}}))
    assert [step["session"]["members"]["ann"]["held_tokens"] for step in other] == [
        0,
        other[0]["usage"]["ann"]["input_tokens"],
    ]


async def test_a_member_goes_on_through_an_agents_tool_loop(call):
    agent, thread = counting(sticky="tools")
    await call(agent, asking(), thread)
    steps = steps_of(await call(agent, asking("And in Oslo now? The weather."), thread))
    assert [step["rounds"][0]["asked"] for step in steps] == [["ann"], ["ann"], ["bob"], ["bob"]]
    assert [step["session"]["member"] for step in steps] == [None, "ann", None, "bob"]


async def test_metadata_of_a_run_name_its_session_within_a_graph_too():
    """As a graph's thread does where nothing else is said: a node may have several conversations."""
    model = RLFocalChatModel(members=obeying("ann"))
    graph = StateGraph(MessagesState)

    def node(state):
        named = [model.invoke("?", {"metadata": {"thread_id": name}}) for name in ("a", "b")]
        return {"messages": [*named, model.invoke("?")]}

    graph.add_node("node", node)
    graph.add_edge(START, "node")
    result = await asyncio.to_thread(graph.compile(checkpointer=InMemorySaver()).invoke, asking("?"), THREAD)
    ids = [message.response_metadata["rlfocal"]["session"]["id"] for message in result["messages"][1:]]
    assert ids == [Session.of(name).key[:12] for name in ("a", "b", "1")]


@pytest.mark.parametrize("is_shared", [False, True], ids=["each its own words", "each other's words too"])
async def test_agents_within_one_thread_have_a_conversation_each(is_shared):
    """Two nodes of a graph are agents of their own: what the one's member said last is nothing to the other.

    Not even where both read the same messages, below instructions of their own.
    """
    prices = {"input_usd_per_mtok": 2.0, "output_usd_per_mtok": 8.0}
    members = [PoolMember(name, CachingChatModel(script=[name], model_name=name), **prices) for name in ("ann", "bob")]
    policy = TakingTurns([["ann"], ["bob"]], ("ann", "bob"))
    model = RLFocalChatModel(members=members, policy=policy, max_team=1, sticky="session")
    graph = StateGraph(MessagesState)

    def fresh(state):
        return {"messages": [HumanMessage("Say who you are.")]}

    for name in ("plan", "act"):
        agent = create_agent(model, [], name=name, system_prompt=f"You {name}.")
        graph.add_node(name, agent if is_shared else RunnableLambda(fresh) | agent)
    graph.add_edge(START, "plan")
    graph.add_edge("plan", "act")
    compiled = graph.compile(checkpointer=InMemorySaver())
    for _ in range(2):
        result = await compiled.ainvoke(asking("?"), THREAD)
    assert [message.text for message in result["messages"] if message.type == "ai"] == ["ann", "bob"] * 2
