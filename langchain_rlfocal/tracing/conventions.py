"""Conventions: which attributes say what, by OpenTelemetry's for generative AI, and what is ours under `rlfocal.*`.

The conventions: https://github.com/open-telemetry/semantic-conventions/blob/v1.41.0/docs/gen-ai/gen-ai-spans.md

Values are texts, numbers, truth values and sequences of one of these, as spans take them. No text of a conversation is among them
but in what `messages_json` makes.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage, UsageMetadata

from langchain_rlfocal.chat_models.metadata import version_of
from langchain_rlfocal.execution import ending_of, read_from_cache, written_to_cache
from langchain_rlfocal.redaction import as_utf8, masked

SEMCONV_VERSION = "1.41.0"
"""Version of OpenTelemetry's semantic conventions that spans and metrics follow, whatever the environment says."""

SCHEMA_URL = f"https://opentelemetry.io/schemas/{SEMCONV_VERSION}"

Value = str | bool | int | float | Sequence[str] | Sequence[float]
Attributes = dict[str, Value]

ENSEMBLE = "rlfocal"
"""`gen_ai.provider.name` of an answer."""

_PROVIDERS = {
    "amazon_bedrock": "aws.bedrock",
    "bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "google_genai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "ibm": "ibm.watsonx.ai",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "xai": "x_ai",
}
"""LangChain's names of providers, where the conventions have another."""

_REQUEST = {
    "temperature": ("gen_ai.request.temperature", float),
    "top_p": ("gen_ai.request.top_p", float),
    "top_k": ("gen_ai.request.top_k", float),
    "frequency_penalty": ("gen_ai.request.frequency_penalty", float),
    "presence_penalty": ("gen_ai.request.presence_penalty", float),
    "max_tokens": ("gen_ai.request.max_tokens", int),
    "max_completion_tokens": ("gen_ai.request.max_tokens", int),
    "max_output_tokens": ("gen_ai.request.max_tokens", int),
    "seed": ("gen_ai.request.seed", int),
}
"""Arguments of a call by the name of their attribute."""

_URLS = (
    "openai_api_base",
    "azure_endpoint",
    "anthropic_api_url",
    "base_url",
    "endpoint_url",
    "endpoint",
    "api_base",
    "server_url",
)
"""Fields under which providers' models keep where they call."""

_CLIENTS = ("root_client", "_client", "client")
_PORTS = {"http": 80, "https": 443}

_ENDING = ("finish_reason", "stop_reason", "done_reason", "stopReason", "finishReason", "completion_reason")
_ROLES = {"human": "user", "HumanMessageChunk": "user"}
_THOUGHTS = {"reasoning", "thinking"}
_TOOL_BLOCKS = {"tool_use", "tool_call", "function_call", "tool_result"}


# ---- what is asked


def request_attributes(params: Mapping[str, Any], metadata: Mapping[str, Any], *, fallback: str) -> Attributes:
    """Describe a request.

    Args:
        params: The call's arguments and the model's, as LangChain tells its tracers.
        metadata: Metadata of the run.
        fallback: The model's name where it has none of its own.
    """
    model = metadata.get("ls_model_name") or params.get("model") or params.get("model_name") or fallback
    provider = str(metadata.get("ls_provider") or params.get("_type") or fallback)
    found: Attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": as_utf8(_PROVIDERS.get(provider, provider)),
        "gen_ai.request.model": as_utf8(str(model)),
    }
    for argument, (name, kind) in _REQUEST.items():
        value = params.get(argument)
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = kind(value)
    stop = params.get("stop")
    if isinstance(stop, Sequence) and not isinstance(stop, str) and stop and all(isinstance(one, str) for one in stop):
        found["gen_ai.request.stop_sequences"] = [as_utf8(one) for one in stop]
    if isinstance(thread := metadata.get("thread_id"), str) and thread:  # LangGraph's
        found["gen_ai.conversation.id"] = as_utf8(thread)
    return found


def server_attributes(model: BaseChatModel) -> Attributes:
    """Say where a model calls, as far as it tells; never who calls, or with what."""
    held = (getattr(model, name, None) for name in _URLS)
    clients = (vars(model).get(name) for name in _CLIENTS)
    private = vars(model).get("__pydantic_private__") or getattr(model, "__pydantic_private__", None) or {}
    others = (private.get(name) for name in _CLIENTS)
    urls = (*held, *(getattr(client, "base_url", None) for client in (*clients, *others)))
    for url in urls:
        with suppress(ValueError, TypeError):
            parts = urlsplit(str(url)) if url is not None else urlsplit("")
            if parts.hostname:
                port = parts.port or _PORTS.get(parts.scheme)
                return {"server.address": as_utf8(parts.hostname), **({"server.port": port} if port else {})}
    return {}


# ---- what comes of it


def response_attributes(message: AIMessage) -> Attributes:
    """Describe a response, but for its tokens."""
    found: Attributes = {}
    if (model := version_of(message)) is not None:
        found["gen_ai.response.model"] = as_utf8(model)
    if reason := finish_reason(message):
        found["gen_ai.response.finish_reasons"] = [reason]
    ident = message.response_metadata.get("id") or message.id
    if isinstance(ident, str) and not ident.startswith(
        ("lc_", "run-")
    ):  # LangChain's own, where the provider gives none
        found["gen_ai.response.id"] = as_utf8(ident)
    return found


def finish_reason(message: AIMessage) -> str | None:
    """Say why a response ended, in the provider's word; None where it does not say."""
    ending = ending_of(message)
    reason = next((ending[name] for name in _ENDING if isinstance(ending.get(name), str)), None)
    return None if reason is None else as_utf8(reason)


def usage_attributes(usage: UsageMetadata | None) -> Attributes:
    """Say how many tokens a call took; cached and reasoning tokens are among those of input and output."""
    if usage is None:
        return {}
    found: Attributes = {
        "gen_ai.usage.input_tokens": usage["input_tokens"],
        "gen_ai.usage.output_tokens": usage["output_tokens"],
    }
    written = usage.get("output_token_details")
    details = {
        "gen_ai.usage.cache_read.input_tokens": read_from_cache(usage),
        "gen_ai.usage.cache_creation.input_tokens": written_to_cache(usage),
        "gen_ai.usage.reasoning.output_tokens": written.get("reasoning") if isinstance(written, Mapping) else None,
    }
    return found | {name: count for name, count in details.items() if isinstance(count, int)}


def error_type(error: BaseException) -> str:
    """Name an error by its class, with its module unless that is Python's own."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def error_attributes(error: BaseException) -> Attributes:
    """Describe an error by its class and HTTP status: its words may quote the conversation."""
    status = getattr(error, "status_code", None)
    known = {"http.response.status_code": status} if isinstance(status, int) and not isinstance(status, bool) else {}
    return {"error.type": error_type(error), **known}


# ---- how an answer came about


def answer_attributes(facts: Mapping[str, Any]) -> Attributes:
    """Describe an answer by what its message says of it; no text, and no canonical answer, is among it."""
    fusion, spent, promise = facts["fusion"], facts["spent"], facts.get("promise")
    session = facts.get("session") or {}
    results = [*facts["candidates"], *facts["failures"]]
    has_prices = any(row.get("cost_usd") is not None for row in results)
    found: dict[str, Value | None] = {
        "rlfocal.answer_id": facts["answer_id"],
        "rlfocal.policy": facts["policy"],
        "rlfocal.policy.trained": facts["trained"],
        "rlfocal.rounds": len(facts["rounds"]),
        "rlfocal.team": list(dict.fromkeys(row["member"] for row in sorted(results, key=lambda row: row["round"]))),
        "rlfocal.failures": [f"{row['member']}:{row['kind']}" for row in facts["failures"]],
        "rlfocal.author": fusion["member"],
        "rlfocal.confidence": fusion["confidence"],
        "rlfocal.agreement": fusion["agreement"],
        "rlfocal.action": fusion["action"],
        "rlfocal.synthesized": fusion["synthesized"],
        "rlfocal.explored": facts["explored"],
        "rlfocal.calls": spent["calls"],
        "rlfocal.tokens": spent["tokens"],
        "rlfocal.usd": spent["usd"] if has_prices else None,
        "rlfocal.target": _target(facts.get("target")),
        "rlfocal.promise": None if promise is None else str(promise["name"]),
        "rlfocal.promise.holds": None if promise is None else bool(promise["holds"]),
        "rlfocal.session": session.get("id"),
        "rlfocal.session.sticky": session.get("sticky"),
        "rlfocal.session.member": session.get("member"),
    }
    return _known(found)


def _target(target: Mapping[str, Any] | None) -> str | None:
    return None if not target else ",".join(f"{name}={value:g}" for name, value in target.items())


def event_attributes(name: str, data: Mapping[str, Any]) -> Attributes:
    """Describe an event of an answer: whom the Decider asks, what came of each, what is answered; no text is among it."""
    if name == "rlfocal_selection":
        chances = data["probabilities"]
        asked = list(data["asked"])
        known = {"rlfocal.asked": asked, "rlfocal.probabilities": [chances.get(one) or 0.0 for one in asked]}
        return _known({"rlfocal.round": data["round"], **known})
    if name == "rlfocal_candidate":
        return _known(
            {
                "rlfocal.round": data["round"],
                "rlfocal.member": data["member"],
                "rlfocal.failure": data.get("kind"),
                "rlfocal.flaw": data.get("flaw"),
                "rlfocal.latency_s": data["latency_s"],
                "rlfocal.usd": data.get("cost_usd"),
                "rlfocal.retries": len(data["retries"]),
            }
        )
    names = ("member", "confidence", "agreement", "action", "synthesized")
    return _known({f"rlfocal.{'author' if one == 'member' else one}": data[one] for one in names})


def _known(values: Mapping[str, Value | None]) -> Attributes:
    return {
        name: as_utf8(value) if isinstance(value, str) else value for name, value in values.items() if value is not None
    }


# ---- what is said


def messages_json(messages: Sequence[BaseMessage], secrets: Collection[str], *, ending: str | None = None) -> str:
    """Write messages in the form of `gen_ai.input.messages` and `gen_ai.output.messages`, as JSON, without secrets.

    Args:
        messages: The messages.
        secrets: Values to hide wherever they occur.
        ending: Why the last of them ended; None for messages that are no response.
    """
    written: list[dict[str, Any]] = [
        {"role": _role_of(message), "parts": [*_parts_of(message, secrets)]} for message in messages
    ]
    if ending is not None:
        written[-1]["finish_reason"] = ending
    return as_utf8(json.dumps(written, ensure_ascii=False, default=str))


def _role_of(message: BaseMessage) -> str:
    return "assistant" if isinstance(message, AIMessage) else _ROLES.get(message.type, message.type)


def _parts_of(message: BaseMessage, secrets: Collection[str]) -> Iterator[dict[str, Any]]:
    if isinstance(message, ToolMessage):
        yield {
            "type": "tool_call_response",
            "id": message.tool_call_id,
            "response": masked(str(message.text), secrets),
        }
        return
    content = message.content
    for block in [content] if isinstance(content, str) else content:
        if isinstance(block, str):
            if block:
                yield {"type": "text", "content": masked(block, secrets)}
            continue
        kind = str(block.get("type"))
        if kind == "text":
            yield {"type": "text", "content": masked(str(block.get("text") or ""), secrets)}
        elif kind in _THOUGHTS:
            said = block.get("reasoning") or block.get("thinking") or ""
            yield {"type": "reasoning", "content": masked(str(said), secrets)}
        elif kind not in _TOOL_BLOCKS:
            yield {"type": kind}  # media and what only one provider has: that it was there
    if isinstance(message, AIMessage):
        for call in message.tool_calls:
            arguments = masked(json.dumps(call["args"], ensure_ascii=False, default=str), secrets)
            with suppress(ValueError):
                arguments = json.loads(arguments)
            yield {"type": "tool_call", "id": call["id"], "name": call["name"], "arguments": arguments}
