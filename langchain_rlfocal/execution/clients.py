"""Clients: the same chat model, whose provider's client makes one attempt and gives up in time.

Providers' packages ask again by themselves, twice to five times. Under an ensemble that asks again too, attempts would
multiply, and a breaker would see one failure of three. And a call in a thread ends only when its client gives up.

It never changes the caller's model, its parameters, cache key or trace: a copy with other clients is made, which share their
connections with the caller's. What it does not recognise stays as it is; it raises nothing.
"""

import copy
import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from langchain_core.language_models import BaseChatModel

logger = logging.getLogger(__name__)

STEPS_S = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Time-outs that clients are made for, in seconds; few, so that few clients are made. Beyond the last, none is set."""

MAX_KEPT = 1024
"""How many copies are remembered; then the oldest is forgotten, and made anew when it is asked for."""

_CLIENTS = ("root_client", "root_async_client", "client", "async_client", "_client", "_async_client")
"""Under which names providers' models keep their clients, or the one resource of theirs that they use."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """A model's copy; None where the model itself serves.

    Attributes:
        model: Forgets this when the model goes, so that no other one is taken for it.
        values: What it was made of, compared by identity: a model that was changed since has another copy.
        made: The copy.
    """

    model: weakref.ref[BaseChatModel]
    values: Sequence[Any]
    made: BaseChatModel | None


_kept: OrderedDict[tuple[int, int | None], _Kept] = OrderedDict()
_lock = threading.RLock()  # reentrant: a model may be collected, and then forgotten, while one is being remembered


def quiet(model: BaseChatModel, *, timeout_s: float | None = None) -> BaseChatModel:
    """Return the same model with clients that do not retry.

    Known are models whose clients have `with_options`, as openai's, anthropic's and groq's, or a configuration, as
    OpenRouter's, and those that read a field `max_retries` at each call, as Google's and Mistral's do. Anything set on the model later is seen.

    Args:
        model: Any chat model.
        timeout_s: After how many seconds the client is to give up, rounded up to one of `STEPS_S`, and never later than it
            would by itself; None leaves that to it. Clients measure each of connecting, sending and silence while reading,
            so that an answer which comes in drops may take longer.

    Returns:
        A copy, the same for the same model and time-out while the model is unchanged; or the model itself where it has
        nothing to switch off, or cannot be copied.
    """
    step_s = None if timeout_s is None else next((step for step in STEPS_S if timeout_s <= step), None)
    key = (id(model), step_s)
    with _lock:
        values = _values_of(model)
        kept = _kept.get(key)
        if kept is None or not _are_same(kept.values, values):
            kept = _Kept(weakref.ref(model, partial(_forget, key)), values, _copy_of(model, step_s))
            _kept[key] = kept
            while len(_kept) > MAX_KEPT:
                _kept.popitem(last=False)
    return model if kept.made is None else kept.made


def _forget(key: tuple[int, int | None], _: weakref.ref[BaseChatModel]) -> None:
    with _lock:
        _kept.pop(key, None)


def _values_of(model: BaseChatModel) -> list[Any]:
    """List what a copy is made of: the fields, and the clients that are made when they are first used."""
    held = vars(model)
    return [held.get(name) for name in (*type(model).model_fields, *_CLIENTS)]


def _are_same(ours: Sequence[Any], theirs: Sequence[Any]) -> bool:
    return len(ours) == len(theirs) and all(mine is yours for mine, yours in zip(ours, theirs, strict=True))


def _copy_of(model: BaseChatModel, step_s: int | None) -> BaseChatModel | None:
    """Make the copy; None where there is nothing to change, or it cannot be made."""
    try:
        # An ensemble's members are quiet already.
        return None if model._llm_type == "rlfocal" else _changed(model, step_s)  # noqa: SLF001
    except Exception as error:  # noqa: BLE001  # any model may come, with any client
        # What it says may hold the client's key.
        kinds = type(model).__name__, type(error).__name__
        logger.debug("%s is asked with a client that may retry by itself, since copying it raised %s.", *kinds)
        return None


def _changed(model: BaseChatModel, step_s: int | None) -> BaseChatModel | None:
    """Make the copy; None where there is nothing to change."""
    copied = model.model_copy()
    quiets = _Quiets(step_s)
    clients = {name: client for name in _CLIENTS if (client := getattr(copied, name, None)) is not None}
    changes = {name: changed for name, client in clients.items() if (changed := quiets.of(client)) is not client}
    if not quiets.has_options and (fields := _field_changes(model, step_s, has_timeout=bool(changes))):
        changes |= fields
        if model.is_lc_serializable():
            # The cache key is made of all fields, and must stay the one of the caller's model.
            vars(copied)["_serialized"] = model.model_copy()._serialized  # noqa: SLF001
    vars(copied).update(changes)  # past validation, which might refuse a value, or make clients anew
    return copied if changes else None


def _field_changes(model: BaseChatModel, step_s: int | None, *, has_timeout: bool) -> dict[str, Any]:
    """Return other values for LangChain's standard fields, of a model that reads them at each call.

    Some count attempts there, and take 0 for their default: 1 is one attempt.
    """
    fields: dict[str, Any] = {
        name: getattr(model, name) for name in ("max_retries", "timeout") if name in type(model).model_fields
    }
    if not isinstance(fields.get("max_retries"), int):
        return {}
    wanted: dict[str, Any] = {"max_retries": 1}
    if "timeout" in fields and not has_timeout:
        wanted["timeout"] = _sooner(fields["timeout"], step_s)
    return {name: value for name, value in wanted.items() if value != fields[name]}


class _Quiets:
    """Makes clients that do not retry, one of each.

    Attributes:
        has_options: Whether any of them had options for it.
    """

    def __init__(self, step_s: int | None) -> None:
        self.has_options = False
        self._step_s = step_s
        self._made: dict[int, Any] = {}

    def of(self, client: Any) -> Any:
        """Return a client, or a resource of one, that makes one attempt; the same object where nothing is to change."""
        if _has_options(client):
            return self._of_client(client)
        if hasattr(getattr(client, "sdk_configuration", None), "retry_config"):
            return self._of_configured(client)
        inner = getattr(client, "_client", None)
        if _has_options(inner):
            changed = self._of_client(inner)
            return client if changed is inner else type(client)(changed)  # a resource keeps methods of its client
        changed = _hurried(inner, self._step_s)
        if changed is inner:
            return _hurried(client, self._step_s)
        outer = copy.copy(client)
        outer._client = changed  # noqa: SLF001  # where it was found
        return outer

    def _of_client(self, client: Any) -> Any:
        self.has_options = True
        if id(client) not in self._made:
            timeout = _sooner(client.timeout, self._step_s)
            options = {"max_retries": 0} if client.max_retries else {}
            options |= {"timeout": timeout} if timeout != client.timeout else {}
            self._made[id(client)] = client.with_options(**options) if options else client
        return self._made[id(client)]

    def _of_configured(self, client: Any) -> Any:
        """Copy a client that is generated by Speakeasy, as OpenRouter's: what it is made of refers to a configuration."""
        self.has_options = True
        configuration = copy.copy(client.sdk_configuration)
        configuration.retry_config = None
        if self._step_s is not None:
            own_ms, limit_ms = configuration.timeout_ms, self._step_s * 1000
            configuration.timeout_ms = limit_ms if own_ms is None else min(own_ms, limit_ms)
        changed = copy.copy(client)
        for name in changed._sub_sdk_map:  # noqa: SLF001  # parts already made keep the other configuration
            vars(changed).pop(name, None)
        # The connections are closed when the client that made them is collected.
        vars(changed).update(sdk_configuration=configuration, made_by=client)
        return changed


def _has_options(client: Any) -> bool:
    """Recognise the clients of openai and of those generated like it."""
    return isinstance(getattr(client, "max_retries", None), int) and callable(getattr(client, "with_options", None))


def _hurried(client: Any, step_s: int | None) -> Any:
    """Return a client of HTTP that gives up sooner and shares the connections; the same object for anything else."""
    package = type(client).__module__.partition(".")[0]
    # What closes itself when it is collected would close the connections of both.
    if package not in {"httpx", "httpx2"} or hasattr(type(client), "__del__"):
        return client
    timeout = _sooner(client.timeout, step_s)
    if timeout == client.timeout:
        return client
    changed = copy.copy(client)
    changed.timeout = timeout
    return changed


def _sooner(own: Any, step_s: int | None) -> Any:
    """Return the time-out, in the form of the client's own, that is over first."""
    if step_s is None:
        return own
    limit_s = float(step_s)
    if own is None:
        return limit_s
    if isinstance(own, int | float):
        return min(own, limit_s)
    if isinstance(own, tuple):
        return tuple(_sooner(part, step_s) for part in own)
    return type(own)(**{name: _sooner(getattr(own, name), step_s) for name in ("connect", "read", "write", "pool")})
