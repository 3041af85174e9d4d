"""Pool: serve the embedded models and hand out the members.

`embedded_pool` starts one llama.cpp server per model inside this process and names its members. A member is a `ChatOpenAI`
whose request says how to prompt: `chat_template_kwargs` picks a style in the server's chat template, beside the ordinary
`temperature`, `max_tokens`, `seed` and `stop`. No member wraps, parses or rewrites anything on the client's side, and
none retries: the ensemble sees what the server says.
"""

import atexit
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from langchain_rlfocal.local import parts, styles
from langchain_rlfocal.local.clients import AsyncClient, Client, Traffic

_HOST = "127.0.0.1"

_SLOT_TOKENS = 1024
"""Context of one request, in tokens: the longest solved questions take a third of it."""


@dataclass(frozen=True, slots=True)
class Prompting:
    """How a member prompts its model, in the terms of an OpenAI-compatible request.

    Attributes:
        model: The model, as its server names it.
        style: One of `styles.STYLES`.
        max_tokens: Tokens after which the answer is cut.
        temperature: 0 always takes the most probable token.
    """

    model: str
    style: str
    max_tokens: int
    temperature: float = 0.0


MEMBERS: Mapping[str, Prompting] = {
    "smollm2-plain": Prompting("smollm2-135m", "plain", max_tokens=24),
    "smollm2-few-shot": Prompting("smollm2-135m", "choices", max_tokens=16),
    "smollm2-steps": Prompting("smollm2-135m", "steps", max_tokens=32),
    "gemma3-few-shot": Prompting("gemma3-270m", "few_shot", max_tokens=16),
    "gemma3-steps": Prompting("gemma3-270m", "steps", max_tokens=32),
    "gemma3-sampled": Prompting("gemma3-270m", "words", max_tokens=16, temperature=0.5),
}
"""The members of the embedded pool, by name."""


class EmbeddedPool:
    """Local models on loopback ports, and the members that prompt them; a context manager.

    The servers live until `close`, the end of a `with` block, or the end of the process, whichever comes first; members
    need nobody to hold the pool.

    Attributes:
        members: Chat models by name; `ModelPool.from_models` takes this mapping as it is.
        base_urls: Address of each model's OpenAI-compatible server, by the model's name.
    """

    members: dict[str, ChatOpenAI]
    base_urls: dict[str, str]

    def __init__(
        self, files: Mapping[str, Path], templates: Mapping[str, str], *, n_threads: int, timeout_s: float
    ) -> None:
        self.members, self.base_urls = {}, {}
        self._servers: list[Any] = []
        self._closing = threading.Lock()
        self._traffic = Traffic()
        self._client, self._async_client = Client(self._traffic), AsyncClient(self._traffic)
        atexit.register(self.close)
        try:
            for model, file in files.items():
                names = [name for name, prompting in MEMBERS.items() if prompting.model == model]
                server = _serve(file, model, template=templates[model], slots=len(names), n_threads=n_threads)
                self._servers.append(server)
                # A server that is dropped before its loop turns never hears of it, and its thread never ends: the loop
                # has to answer once.
                self._client.get(f"{server.listening_address}/slots", timeout=timeout_s).raise_for_status()
                self.base_urls[model] = f"{server.listening_address}/v1"
                for slot, name in enumerate(names):
                    self.members[name] = self._member(MEMBERS[name], slot=slot, timeout_s=timeout_s)
        except BaseException:
            self.close()
            raise

    def _member(self, prompting: Prompting, *, slot: int, timeout_s: float) -> ChatOpenAI:
        return ChatOpenAI(
            model=prompting.model,
            base_url=self.base_urls[prompting.model],
            api_key=SecretStr("none"),
            temperature=prompting.temperature,
            max_completion_tokens=prompting.max_tokens,
            # Every style answers in one line; a base model would go on to invent the next question.
            stop_sequences=["\n"],
            seed=0,
            logprobs=True,
            top_logprobs=1,
            max_retries=0,
            timeout=timeout_s,
            stream_usage=True,
            # A slot of its own keeps a member's solved questions computed, whatever the others ask meanwhile: without it
            # they would be computed anew for most answers.
            extra_body={"chat_template_kwargs": {"style": prompting.style}, "id_slot": slot},
            # No connection outlives its request, so clients may hop between event loops and `close` finds none open.
            default_headers={"Connection": "close"},
            http_client=self._client,
            http_async_client=self._async_client,
        )

    def close(self) -> None:
        """Stop the servers and free their ports, threads and memory; a second call does nothing.

        Answers that members are writing are waited for, streams are cut. Whoever talks to `base_urls` with a client of
        their own must be done before.
        """
        atexit.unregister(self.close)
        self._traffic.close()
        with self._closing:
            self._servers.clear()  # a server stops when its last reference goes
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"EmbeddedPool({'open' if self._servers else 'closed'}, members={list(self.members)})"


def embedded_pool(*, cache_dir: Path | None = None, n_threads: int = 1, timeout_s: float = 120.0) -> EmbeddedPool:
    """Start the embedded models.

    The first call puts one model together in the cache folder, which takes some seconds; later calls find it there.

    Args:
        cache_dir: Where that model is kept; None for `$XDG_CACHE_HOME/rlfocal`, else `~/.cache/rlfocal`.
        n_threads: Threads that each of the two servers computes with; they compute at the same time, so more than half
            the cores slows both.
        timeout_s: Seconds after which a member's request fails.

    Raises:
        MissingDependencyError: llama.cpp or a model is not installed; names everything missing and the command.
    """
    parts.require_parts()
    files = {
        "smollm2-135m": parts.smollm2_file(),
        "gemma3-270m": parts.gemma3_file(cache_dir or parts.default_cache_dir()),
    }
    templates = {"smollm2-135m": styles.smollm2_template(), "gemma3-270m": styles.gemma3_template()}
    return EmbeddedPool(files, templates, n_threads=n_threads, timeout_s=timeout_s)


def _serve(file: Path, model: str, *, template: str, slots: int, n_threads: int) -> Any:
    """Serve one GGUF file on a free loopback port, `slots` requests at a time, until the returned server is dropped."""
    import xllamacpp  # noqa: PLC0415  # native code, loaded only by those who start a server

    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = str(file), {model}
    params.hostnames, params.port = [_HOST], 0
    params.use_jinja, params.chat_template = True, template
    params.n_parallel, params.n_ctx = slots, slots * _SLOT_TOKENS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = n_threads
    params.warmup, params.verbosity = False, -1
    # A stream notices that its server stops at its next ping, by default after half a minute.
    params.sse_ping_interval = 1
    # What a slot has computed stays usable only where sliding windows keep all of it; copies of slots in memory would
    # then serve nobody.
    params.swa_full, params.cache_ram_mib = True, 0
    return xllamacpp.Server(params)
