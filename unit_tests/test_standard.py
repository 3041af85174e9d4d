"""LangChain's standard unit tests, for an ensemble of three members."""

import pytest
from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_rlfocal import RLFocalChatModel
from support_schema_model import SchemaChatModel


@pytest.mark.filterwarnings("ignore:`api_key` is not an argument of RLFocalChatModel:UserWarning")
class TestRLFocalUnit(ChatModelUnitTests):
    """The constructor warns of one standard argument: each member holds its own key.

    Skipped, and why:
    - `test_init_from_env`: the ensemble reads nothing from the environment.
    - `test_serdes`: members are arbitrary objects, so it is not serializable in LangChain's sense.
    """

    @property
    def chat_model_class(self):
        return RLFocalChatModel

    @property
    def chat_model_params(self):
        return {"members": {name: SchemaChatModel(model_name=f"model-{name}") for name in "abc"}}
