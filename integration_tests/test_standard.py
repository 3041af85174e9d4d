"""LangChain's standard integration tests, for an ensemble of three members that obey tools and schemas.

What the ensemble does depends on how many members are asked: one is relayed, several are fused.
"""

from langchain_tests.integration_tests import ChatModelIntegrationTests

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.testing import ScriptedPolicy
from support_schema_model import SchemaChatModel

MEMBERS = ("a", "b", "c")


class EnsembleTests(ChatModelIntegrationTests):
    """What the three have in common.

    Skipped, and why:
    - `test_image_inputs`, `test_pdf_inputs`, `test_audio_inputs`, `test_image_tool_message`, `test_pdf_tool_message`: they
      download what they show to the model.
    - `test_stream_time`: it times a recording of a provider's HTTP traffic, and these members have none.
    """

    chat_model_class = RLFocalChatModel

    @property
    def chat_model_params(self):
        return {"members": {name: SchemaChatModel(model_name=f"model-{name}") for name in MEMBERS}}

    has_tool_calling = True
    has_tool_choice = True
    has_structured_output = True
    supports_json_mode = True
    returns_usage_metadata = True
    supports_anthropic_inputs = True
    supports_model_override = True
    model_override_value = "b"


class TestOneMemberIsAsked(EnsembleTests):
    """The first of those who may be asked: a call that names a member leaves only that one."""

    @property
    def chat_model_params(self):
        policy = ScriptedPolicy(teams=[MEMBERS], members=MEMBERS)
        return {**super().chat_model_params, "policy": policy, "max_team": 1}


class TestAllMembersAreAsked(EnsembleTests):
    @property
    def chat_model_params(self):
        policy = ScriptedPolicy(teams=[MEMBERS], members=MEMBERS)
        return {**super().chat_model_params, "policy": policy, "max_team": 3}

    @property
    def structured_output_kwargs(self):
        return {"method": "function_calling"}


class TestThereIsNoPolicy(EnsembleTests):
    @property
    def chat_model_params(self):
        return {**super().chat_model_params, "max_rounds": 2}

    @property
    def structured_output_kwargs(self):
        return {"method": "json_schema"}
