"""The demo: real local models behind ordinary LangChain chat models, and a policy for them; no key, no download.

Two small language models come as Python packages, llama.cpp serves each on a free loopback port inside this process, and
every way of prompting one of them is a member: a plain `ChatOpenAI` with a `base_url`. What works for these members works
for vLLM, Ollama, OpenRouter and OpenAI. Importing this package starts nothing and loads neither llama.cpp nor torch.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_rlfocal.demo.pool import EmbeddedPool, embedded_pool

__all__ = ["POLICY_PATH", "QUESTIONS_PATH", "EmbeddedPool", "embedded_pool"]

POLICY_PATH = Path(__file__).parent / "policy"
"""Directory of the policy that is trained for the embedded pool and ships in the package."""

QUESTIONS_PATH = Path(__file__).parent / "questions.jsonl"
"""The questions that the shipped policy is trained and evaluated on."""


def __getattr__(name: str) -> Any:
    """Import the pool on first use: it loads LangChain's OpenAI client, which takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from langchain_rlfocal.demo import pool  # noqa: PLC0415  # see above

    return getattr(pool, name)
