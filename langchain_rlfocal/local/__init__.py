"""The embedded pool: real local models behind ordinary LangChain chat models, without a key or a download.

Two small language models come as Python packages, llama.cpp serves each on a free loopback port inside this process,
and every way of prompting one of them is a member: a plain `ChatOpenAI` with a `base_url`. What works for these members
works for vLLM, Ollama, OpenRouter and OpenAI.

Importing this package starts nothing and loads neither llama.cpp nor torch. It never fetches anything from a network and
never serves beyond 127.0.0.1.
"""

from langchain_rlfocal.local.parts import POLICY_PATH, QUESTIONS_PATH
from langchain_rlfocal.local.pool import EmbeddedPool, embedded_pool

__all__ = ["POLICY_PATH", "QUESTIONS_PATH", "EmbeddedPool", "embedded_pool"]
