"""Members that answer oddly or not at all, and ensembles with one of them."""

import json

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.messages.tool import invalid_tool_call, tool_call
from langchain_core.outputs import ChatGeneration, ChatResult

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.testing import ScriptedChatModel, ScriptedPolicy

TEN_MB = "x" * 10_000_000


class Tooled(BaseChatModel):
    """A double that knows of tools, and does not care."""

    def bind_tools(self, tools, **kwargs):
        return self.bind()


class Saying(ScriptedChatModel, Tooled):
    pass


class Odd(Tooled):
    """Hands on a response that LangChain's types would not allow; `made` makes it anew for each call."""

    made: object

    @property
    def _llm_type(self):
        return "odd"

    @property
    def _identifying_params(self):
        return {}

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return self.made()

    async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
        return self.made()


def saying(answer):
    return Saying(script=[answer])


def responding(message):
    """A model whose response is this object, unchecked."""
    generation = ChatGeneration.model_construct(message=message, text="", generation_info=None)
    return Odd(made=lambda: ChatResult.model_construct(generations=[generation], llm_output=None))


def loose(**fields):
    """A message that nothing has checked."""
    return AIMessage.model_construct(**{"content": "", "tool_calls": [], "invalid_tool_calls": [], **fields})


def calling(args, name="lookup"):
    return saying(AIMessage("", tool_calls=[tool_call(name=name, args=args, id="x")]))


def unparsed(args, name="lookup"):
    return saying(AIMessage("", invalid_tool_calls=[invalid_tool_call(name=name, args=args, id="x", error=None)]))


def team(bad, good=None):
    """The bad member is asked once, beside two good ones."""
    members = {"bad": bad, "good": good or saying("yes"), "also": good or saying("yes")}
    return RLFocalChatModel(members=members, policy=ScriptedPolicy([tuple(members)], tuple(members)), max_retries=0)


def first(bad, good=None):
    """The bad member is asked once and alone, its text passed on while it comes, and a good one may stand in."""
    members = {"bad": bad, "good": good or saying("yes")}
    policy = ScriptedPolicy([["bad"], ["good"]], tuple(members))
    return RLFocalChatModel(members=members, policy=policy, max_rounds=1, max_team=2, max_retries=0)


def failures_of(message):
    return {f["member"]: f["kind"] for f in message.response_metadata["rlfocal"]["failures"]}


def is_explained(message):
    """True if what the answer says of itself is JSON and can be shown."""
    json.dumps(message.response_metadata["rlfocal"], allow_nan=False)
    shown = RLFocalChatModel.explain(message)
    return shown.encode().decode() == shown and "\x00" not in shown
