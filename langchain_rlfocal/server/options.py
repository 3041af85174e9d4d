"""Options: the body's `rlfocal` object, as the options of a call."""

from collections.abc import Mapping
from typing import Any

from langchain_rlfocal.chat_models.arguments import OPTION_NAMES
from langchain_rlfocal.server.errors import ApiError

CLIENTS_OWN = frozenset(OPTION_NAMES) - {"retry_on", "explore"} | {"session"}
"""What a client may set; the rest is the server's."""


def options_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """Read the body's `rlfocal` object.

    Raises:
        ApiError: It is no object, or names what a client cannot set.
    """
    given = body.get("rlfocal")
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ApiError(400, "`rlfocal` must be an object.", param="rlfocal")
    for name in given:
        if name not in CLIENTS_OWN:
            raise ApiError(
                400,
                f"`rlfocal.{name[:60]}` is no option of a call.",
                param=f"rlfocal.{name[:60]}",
                code="unknown_parameter",
            )
    return {name: value for name, value in given.items() if value is not None}
