"""Errors: OpenAI's form of an error, and which of the package's errors is which."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

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


class ApiError(Exception):
    """What a client is told instead of an answer.

    Attributes:
        status: HTTP status.
        message: What is wrong, and the way out.
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
        self.status, self.message, self.type, self.code, self.param = status, message, type, code, param
        self.headers = dict(headers or {})
        super().__init__(message)

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
            return ApiError(429, message, type="insufficient_quota", code="insufficient_quota")
        case DeadlineError():
            return ApiError(504, message, type="server_error", code="timeout")
        case EnsembleError():
            status = 503 if error.is_retryable else 502
            return ApiError(status, message, type="server_error", code="no_member_answered")
        case DisagreementError():
            return ApiError(409, message, type="conflict_error", code="disagreement")
        case FeedbackError():
            return ApiError(400, message)
        case InputError():
            return ApiError(400, message)
        case RLFocalError():
            return ApiError(500, message, type="server_error")
    return ApiError(500, "The server failed to answer; its log says why.", type="server_error", code="internal_error")
