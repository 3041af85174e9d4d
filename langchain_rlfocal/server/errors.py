"""Errors: OpenAI's form of an error, and which of the package's errors is which."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from langchain_rlfocal._langchain import EnsembleOverflowError
from langchain_rlfocal.chat_models.arguments import OPTION_NAMES
from langchain_rlfocal.errors import (
    BudgetError,
    DeadlineError,
    DisagreementError,
    EnsembleError,
    FeedbackError,
    InputError,
    OverloadError,
    RLFocalError,
)
from langchain_rlfocal.redaction import printable

_PARAMS = {name: f"rlfocal.{name}" for name in OPTION_NAMES} | {
    name: name for name in ("tool_choice", "response_format")
}
"""Fields of a body by the arguments that the package's errors name."""

NO_RETRY = {"x-should-retry": "false"}
"""OpenAI's clients ask again after 409, 429 and 5xx, unless they are told that it would not help."""


class ApiError(Exception):
    """What a client is told instead of an answer.

    Attributes:
        status: HTTP status.
        message: What is wrong, and the way out. "It" at its beginning is the field that it is about.
        type: OpenAI's kind of error, such as `invalid_request_error`.
        code: OpenAI's code, such as `model_not_found`.
        param: The field of the body that it is about.
        headers: Headers of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",  # noqa: A002  # OpenAI's name
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if param is not None and message.startswith("It must"):
            message = f"`{param}`{message[2:]}"
        elif param is not None and param not in message:
            message = f"`{param}`: {message}"
        self.status, self.message, self.type, self.code, self.param = status, message, type, code, param
        self.headers = dict(headers or {})
        super().__init__(message)

    def renamed(self, names: Mapping[str, str]) -> "ApiError":
        """Return it about a field of another form of request, where its own begins with one of these names."""
        param = self.param or ""
        old = next((name for name in names if param == name or param.startswith((f"{name}.", f"{name}["))), None)
        if old is None:
            return self
        new = names[old] + param.removeprefix(old)
        message = self.message.replace(f"`{param}`", f"`{new}`")
        return ApiError(self.status, message, type=self.type, code=self.code, param=new, headers=self.headers)

    def body(self) -> dict[str, Any]:
        """Return it as OpenAI's clients read it."""
        shown = printable(self.message)
        return {"error": {"message": shown, "type": self.type, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        """Make the response."""
        return JSONResponse(self.body(), self.status, headers=self.headers)


def retry_after(seconds: float) -> dict[str, str]:
    """Make the header that says when to ask again, in whole seconds, rounded up."""
    return {"Retry-After": str(max(1, -int(-seconds // 1)))}


def to_api_error(error: Exception) -> ApiError:
    """Say an error of the package in OpenAI's form; what is not the package's is an internal error, told without its text."""
    message = str(error)
    match error:
        case ApiError():
            return error
        case OverloadError():
            headers = retry_after(error.retry_after_s)
            return ApiError(429, message, type="rate_limit_error", code="rate_limit_exceeded", headers=headers)
        case BudgetError():
            return ApiError(429, message, type="insufficient_quota", code="insufficient_quota", headers=NO_RETRY)
        case EnsembleOverflowError():
            return ApiError(400, message, code="context_length_exceeded", param="messages")
        case DisagreementError():
            return ApiError(409, message, type="conflict_error", code="disagreement", headers=NO_RETRY)
        case EnsembleError():
            status, code = (504, "timeout") if isinstance(error, DeadlineError) else (502, "no_member_answered")
            if error.is_retryable and status == 502:
                status = 503
            headers = {} if error.is_retryable else NO_RETRY
            return ApiError(status, message, type="server_error", code=code, headers=headers)
        case InputError():
            named = message.split("`")[1] if message.startswith("`") else ""
            return ApiError(400, message, param=_PARAMS.get(named))
        case FeedbackError():
            return ApiError(400, message)
        case RLFocalError():
            return ApiError(500, message, type="server_error")
    return ApiError(500, "The server failed to answer; its log says why.", type="server_error", code="internal_error")
