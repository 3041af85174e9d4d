"""LangChain's own tests, on the schema-obeying double alone."""

from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_rlfocal.testing import SchemaChatModel


class Standard:
    """What the double is and can do; the tests that are skipped need a network, a provider's recording or another model."""

    @property
    def chat_model_class(self):
        return SchemaChatModel

    @property
    def supports_json_mode(self):
        return True

    @property
    def supports_anthropic_inputs(self):
        return True

    @property
    def supports_model_override(self):
        return False


class TestSchemaChatModelUnit(Standard, ChatModelUnitTests):
    pass


class TestSchemaChatModelIntegration(Standard, ChatModelIntegrationTests):
    pass
