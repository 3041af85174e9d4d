"""Options: the body's `rlfocal` object, as the options of a call.

They are those of `RLFocalChatModel`, under the same names. What the server was started with is the most that a request may ask for of
`max_team`, `max_rounds`, `max_retries` and of seconds: it can ask for less.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from langchain_rlfocal.chat_models import RLFocalChatModel
from langchain_rlfocal.chat_models.arguments import CallOptions
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.execution import Budget
from langchain_rlfocal.policies.targets import TARGETS
from langchain_rlfocal.server.errors import ApiError

SERVERS_OWN = frozenset({"retry_on", "explore", "timeout", "account"})
"""Options of a call that are no client's to set."""

AT_MOST = ("max_team", "max_rounds", "max_retries", "member_timeout_s", "deadline_s")
"""Options whose value at the server is the most that a request may ask for."""

MAX_SESSION_CHARS = 200

DECIDING = frozenset({*TARGETS, "promise", "cost_weight"})
"""Options of which a request can give one: each decides what an answer takes."""

_HINTS: Mapping[str, Any] = {
    **{
        name: hint for name, hint in get_type_hints(CallOptions, include_extras=True).items() if name not in SERVERS_OWN
    },
    "consensus": Literal["whole", "fields"],
    "session": Annotated[str, Field(min_length=1, max_length=MAX_SESSION_CHARS, strict=True)],
}
OPTIONS = tuple(_HINTS)
"""What a request may set."""

_CHECKS = {name: TypeAdapter(hint) for name, hint in _HINTS.items()}


def options_of(given: Any, model: RLFocalChatModel, *, session: str | None = None) -> dict[str, Any]:
    """Read the body's `rlfocal` object.

    Args:
        given: The object; None where there is none.
        model: The ensemble.
        session: The session that the request's header names; the object's own goes before it.

    Raises:
        ApiError: It is no object, names no option, or a value is outside its range.
    """
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise ApiError(400, f"It must be an object of options: {', '.join(OPTIONS)}.", param="rlfocal")
    if session is not None:
        given = {"session": session, **given}
    options = {name: _checked(name, value) for name, value in given.items() if value is not None}
    for name in AT_MOST:
        most = getattr(model, name)
        if name in options and most is not None and options[name] > most:
            raise ApiError(
                400, f"It must be at most {most}, as the server allows, got {options[name]}.", param=f"rlfocal.{name}"
            )
    if "budget_per_answer" in options:
        options["budget_per_answer"] = _lesser(options["budget_per_answer"], model.budget_per_answer)
    deciding = [name for name in options if name in DECIDING]
    if len(deciding) > 1:
        raise ApiError(
            400,
            f"Of {', '.join(deciding)} one can be given: each decides what an answer takes. Leave the others out.",
            param=f"rlfocal.{deciding[1]}",
        )
    return options


def _checked(name: str, value: Any) -> Any:
    where = f"rlfocal.{name[:60]}"
    if name not in _CHECKS:
        raise ApiError(
            400, f"There is no such option. There are: {', '.join(OPTIONS)}.", code="unknown_parameter", param=where
        )
    try:
        return _CHECKS[name].validate_python(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[0]
        told = found.get("ctx", {}).get("error")
        message = str(told) if isinstance(told, InputError) else found["msg"].replace("Input should", "It must", 1)
        raise ApiError(400, message, param=where) from None
    except InputError as error:
        raise ApiError(400, str(error), param=where) from None


def _lesser(asked: Budget, servers: Any) -> Budget:
    """Take of two budgets the lesser of each limit."""
    if not isinstance(servers, Budget):
        return asked
    limits: dict[str, Any] = {}
    for one in fields(Budget):
        given = [v for v in (getattr(asked, one.name), getattr(servers, one.name)) if v is not None]
        limits[one.name] = min(given, default=None)
    return Budget(**limits)
