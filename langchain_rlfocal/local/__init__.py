"""The embedded pool: real local models behind ordinary LangChain chat models, without a key or a download.

Two small language models come as Python packages, llama.cpp serves each on a free loopback port inside this process,
and every way of prompting one of them is a member: a plain `ChatOpenAI` with a `base_url`. What works for these members
works for vLLM, Ollama, OpenRouter and OpenAI.

Importing this package starts nothing and loads neither llama.cpp nor torch. It never fetches anything from a network and
never serves beyond 127.0.0.1.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from langchain_rlfocal.local.parts import POLICY_PATH, QUESTIONS_PATH

if TYPE_CHECKING:
    from langchain_rlfocal.local.pool import EmbeddedPool, embedded_pool

__all__ = ["POLICY_PATH", "QUESTIONS_PATH", "EmbeddedPool", "embedded_pool"]


def __getattr__(name: str) -> Any:
    """Import what starts servers on first use: it loads LangChain's OpenAI client, which takes seconds."""
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.pool"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
