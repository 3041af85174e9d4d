"""Names: what a request's `model` means.

`rlfocal` is the ensemble; `rlfocal:calls=2` and `rlfocal:promise=best-0.02@0.9` are the ensemble with an option; any other name is a
member, who then answers alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_rlfocal.chat_models import RLFocalChatModel
from langchain_rlfocal.policies.targets import TARGETS
from langchain_rlfocal.server.errors import ApiError

ALIASED = {
    **{name.removeprefix("target_"): name for name in TARGETS},
    "cost_weight": "cost_weight",
    "promise": "promise",
}
"""What can follow the ensemble's name, and the option that it sets."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Who is asked.

    Attributes:
        name: The name as it was given.
        member: The member that answers alone; None for the ensemble.
        options: Options of the call.
    """

    name: str
    member: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def choice_of(name: Any, model: RLFocalChatModel) -> Choice:
    """Read a request's `model`.

    Raises:
        ApiError: There is no such model.
    """
    if not isinstance(name, str) or not name:
        raise ApiError(
            400, f"`model` must be a name such as `{model.model_name}`. GET /v1/models lists them.", param="model"
        )
    if name == model.model_name:
        return Choice(name)
    own, _, terms = name.partition(":")
    if own == model.model_name and terms:
        key, _, value = terms.partition("=")
        if key == "promise" and value:
            return Choice(name, options={"promise": value})
        try:
            return Choice(name, options={ALIASED[key]: float(value)})
        except (KeyError, ValueError):
            raise unknown_model(name, model) from None
    if name in model.pool:
        return Choice(name, member=name)
    raise unknown_model(name, model)


def unknown_model(name: str, model: RLFocalChatModel) -> ApiError:
    """Make the error of a name that is no model's."""
    return ApiError(
        404,
        f"The model `{name[:100]}` does not exist. Known: {', '.join([model.model_name, *model.pool.names])}, and aliases such as "
        f"`{model.model_name}:calls=2`; GET /v1/models lists them.",
        code="model_not_found",
        param="model",
    )
