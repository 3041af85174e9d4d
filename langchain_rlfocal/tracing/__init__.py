"""Tracing: answers and their members' calls as spans and metrics of OpenTelemetry, by its conventions for generative AI.

handler      a callback handler of LangChain that makes them
conventions  their names and values; needs no OpenTelemetry
configuring  where they are sent, by the standard variables of the environment

Nothing is traced unless the handler stands among a call's callbacks. What is said and answered is left out unless it is asked for,
secrets always.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from langchain_rlfocal.errors import MissingDependencyError

if TYPE_CHECKING:
    from langchain_rlfocal.tracing.configuring import Telemetry, configure
    from langchain_rlfocal.tracing.conventions import SCHEMA_URL, SEMCONV_VERSION
    from langchain_rlfocal.tracing.handler import OpenTelemetryHandler

__all__ = ["SCHEMA_URL", "SEMCONV_VERSION", "OpenTelemetryHandler", "Telemetry", "configure"]

_HOMES = {
    "SCHEMA_URL": "conventions",
    "SEMCONV_VERSION": "conventions",
    "OpenTelemetryHandler": "handler",
    "Telemetry": "configuring",
    "configure": "configuring",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use.

    Raises:
        MissingDependencyError: OpenTelemetry is not installed.
    """
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    try:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ImportError as error:
        if not str(error.name).startswith("opentelemetry"):
            raise
        raise MissingDependencyError(
            "Traces need OpenTelemetry: `pip install 'langchain-rlfocal[otel]'`. Or leave them out."
        ) from error


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
