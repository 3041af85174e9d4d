"""Pool: serve the embedded models and hand out the members.

`embedded_pool` starts one llama.cpp server per model inside this process and names its members. A member is a `ChatOpenAI`
whose request says how to prompt: the field `chat_template_kwargs` picks a style in the server's chat template, beside the
ordinary `temperature`, `max_tokens`, `seed` and `stop`. No member wraps, parses or rewrites anything on the client's
side, and none retries: the ensemble sees what the server says.
"""

import atexit
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from langchain_openai import ChatOpenAI
from openai import DefaultAsyncHttpxClient, DefaultHttpxClient

from langchain_rlfocal.local import parts
from langchain_rlfocal.local.templates import gemma3_template, smollm2_template

_SLOT_TOKENS = 1024
"""Context of one request, in tokens: the longest few-shot prompt takes a third of it."""

_SLOTS = 4
"""Requests that one server decodes at the same time: its members, and one to spare."""


@dataclass(frozen=True, slots=True)
class _Style:
    """How a member prompts its model; the fields are those of an OpenAI-compatible request."""

    model: str
    style: str
    max_tokens: int
    temperature: float = 0.0
    stop: tuple[str, ...] = ()


_MEMBERS: Mapping[str, _Style] = {
    "smollm2-plain": _Style("smollm2-135m", "plain", max_tokens=24),
    "smollm2-few-shot": _Style("smollm2-135m", "few_shot", max_tokens=16, stop=("\n",)),
    "smollm2-steps": _Style("smollm2-135m", "steps", max_tokens=48, stop=("\n",)),
    "gemma3-plain": _Style("gemma3-270m", "plain", max_tokens=16, stop=("\n", "Question:")),
    "gemma3-few-shot": _Style("gemma3-270m", "few_shot", max_tokens=16, stop=("\n", "Question:")),
    "gemma3-steps": _Style("gemma3-270m", "steps", max_tokens=48, stop=("\n", "Question:")),
    "gemma3-sampled": _Style("gemma3-270m", "few_shot", max_tokens=16, temperature=0.7, stop=("\n", "Question:")),
}


class EmbeddedPool:
    """Local models on loopback ports, and the members that prompt them; a context manager.

    The servers live until `close`, the end of a `with` block, or the end of the process, whichever comes first.

    Attributes:
        members: Chat models by name; `ModelPool.from_models` takes this mapping as it is.
        base_urls: Address of each model's OpenAI-compatible server, by the model's name.
    """

    members: dict[str, ChatOpenAI]
    base_urls: dict[str, str]

    def __init__(self, files: Mapping[str, Path], templates: Mapping[str, str], *, n_threads: int, timeout_s: float) -> None:
        self._lock = threading.Lock()
        self._servers: dict[str, Any] = {}
        # A proxy that the environment configures must not see requests to this very process.
        self._client = DefaultHttpxClient(trust_env=False)
        self._async_client = DefaultAsyncHttpxClient(trust_env=False)
        # Not a weak finalizer: members do not hold the pool, and must work when nobody keeps it.
        atexit.register(self.close)
        try:
            for model, file in files.items():
                self._servers[model] = _serve(file, name=model, template=templates[model], n_threads=n_threads)
            self.base_urls = {model: f"{server.listening_address}/v1" for model, server in self._servers.items()}
            self.members = {}
            for name, style in _MEMBERS.items():
                slot = sum(member.model_name == style.model for member in self.members.values())
                self.members[name] = self._member(style, slot=slot, timeout_s=timeout_s)
        except BaseException:
            self.close()
            raise

    def _member(self, style: _Style, *, slot: int, timeout_s: float) -> ChatOpenAI:
        return ChatOpenAI(
            model=style.model,
            base_url=self.base_urls[style.model],
            api_key="none",  # type: ignore[arg-type]  # pydantic wraps it; the server asks for no key
            temperature=style.temperature,
            max_tokens=style.max_tokens,  # type: ignore[call-arg]  # alias of max_completion_tokens
            stop=list(style.stop) or None,
            seed=0,
            logprobs=True,
            top_logprobs=1,
            max_retries=0,
            timeout=timeout_s,
            stream_usage=True,
            # A slot of its own keeps the member's solved questions computed, whatever the others ask meanwhile.
            extra_body={"chat_template_kwargs": {"style": style.style}, "id_slot": slot},
            # No connection outlives its request: clients may hop between event loops, and `close` finds none open.
            default_headers={"Connection": "close"},
            http_client=self._client,
            http_async_client=self._async_client,
        )

    def close(self) -> None:
        """Stop the servers and free their ports, threads and memory; a second call does nothing."""
        atexit.unregister(self.close)
        with self._lock:
            # A server stops when its last reference goes.
            self._servers.clear()
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "open" if self._servers else "closed"
        return f"EmbeddedPool({state}, members={list(self.members)})"


def embedded_pool(*, cache_dir: Path | None = None, n_threads: int = 1, timeout_s: float = 120.0) -> EmbeddedPool:
    """Start the embedded models.

    The first call puts one model together in the cache folder (seconds); later ones start at once.

    Args:
        cache_dir: Where that model is kept; None for `$XDG_CACHE_HOME/rlfocal`, else `~/.cache/rlfocal`.
        n_threads: Threads that each of the two servers computes with. More than one is slower where cores are few.
        timeout_s: Seconds after which a member's request fails.

    Raises:
        MissingDependencyError: llama.cpp or a model is not installed; names everything missing and the command.
    """
    parts.require_parts()
    files = {
        "smollm2-135m": parts.smollm2_file(),
        "gemma3-270m": parts.gemma3_file(cache_dir or parts.default_cache_dir()),
    }
    templates = {"smollm2-135m": smollm2_template(), "gemma3-270m": gemma3_template()}
    return EmbeddedPool(files, templates, n_threads=n_threads, timeout_s=timeout_s)


def _serve(file: Path, *, name: str, template: str, n_threads: int) -> Any:
    """Start an OpenAI-compatible server for one GGUF file on a free loopback port; it stops when dropped."""
    import xllamacpp  # noqa: PLC0415  # 34 MB of native code, loaded only by who starts a server

    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.model_alias = {name}
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.use_jinja, params.chat_template = True, template
    params.n_parallel, params.n_ctx = _SLOTS, _SLOTS * _SLOT_TOKENS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = n_threads
    params.warmup, params.verbosity = False, -1
    # Each style keeps its prefix in a slot of its own. Sliding-window layers must keep all of it to be of use, and
    # copies of idle slots in memory would be of none.
    params.swa_full, params.cache_ram_mib = True, 0
    return xllamacpp.Server(params)
