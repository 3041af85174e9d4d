"""Names: what a request's `model` means.

`rlfocal` is the ensemble; `rlfocal:calls=2` or `rlfocal:promise=best-0.02@0.9` is the ensemble with one option set; any other name is
that of a member, who then answers alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_rlfocal.chat_models import RLFocalChatModel
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.policies.targets import TARGETS, UNITS, Curve, Target
from langchain_rlfocal.server.errors import ApiError

_TARGETS = {name.removeprefix("target_"): name for name in TARGETS}

_MAX_LISTED = 5
"""How many aliases of a unit are listed; any other amount is as good."""

_MAX_SHOWN_CHARS = 100


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

    @property
    def kind(self) -> str:
        """What it is: `ensemble`, `target`, `promise` or `member`."""
        if self.member is not None:
            return "member"
        return "promise" if "promise" in self.options else "target" if self.options else "ensemble"


def choice_of(name: Any, model: RLFocalChatModel) -> Choice:
    """Read a request's `model`.

    Raises:
        ApiError: There is no such model.
    """
    if not isinstance(name, str) or not name:
        known = f"a name, such as {model.model_name}; GET /v1/models lists them"
        raise ApiError(400, f"You must give a model: {known}.", param="model")
    if name == model.model_name:
        return Choice(name)
    if name in model.pool:
        return Choice(name, member=name)
    own, _, term = name.partition(":")
    what, _, value = term.partition("=")
    if own != model.model_name or not value:
        raise unknown_model(name, model)
    if what == "promise":
        if value not in certified(model):
            raise unknown_model(name, model)
        return Choice(name, options={"promise": value})
    if what not in _TARGETS:
        raise unknown_model(name, model)
    try:
        target = Target(_TARGETS[what], float(value))
    except (InputError, ValueError) as error:
        raise ApiError(
            400, f"The model `{_shown(name)}` has no amount that can be kept: {error}", param="model"
        ) from None
    return Choice(name, options={target.name: target.value})


def unknown_model(name: str, model: RLFocalChatModel) -> ApiError:
    """Make the error of a name that is no model's."""
    return ApiError(
        404,
        f"The model `{_shown(name)}` does not exist. Ask for `{model.model_name}`, or for one that GET /v1/models lists.",
        code="model_not_found",
        param="model",
    )


def _shown(name: str) -> str:
    return name[:_MAX_SHOWN_CHARS]


def certified(model: RLFocalChatModel) -> Mapping[str, Any]:
    """Return the certificates of the model's policy, by their promises."""
    found: Mapping[str, Any] = getattr(model.policy, "certificates", {})
    return found


def aliases_of(model: RLFocalChatModel) -> Iterator[str]:
    """List names of the ensemble with an option: amounts that the policy's curve reaches, and its promises."""
    curve: Curve | None = getattr(model.policy, "curve", None)
    for unit in UNITS if curve is not None else ():
        try:
            taken, _ = curve.hull(unit, frozenset(model.pool.names)) if curve is not None else ((), ())
        except InputError:  # it was not on record in training
            continue
        if unit == "calls":
            amounts = {f"{calls}" for calls in range(1, int(taken[-1]) + 1)}
        else:  # a little more than the least, since that is the mean of a sample
            places = {round(step * (len(taken) - 1) / (_MAX_LISTED - 1)) for step in range(_MAX_LISTED)}
            amounts = {_rounded_up(taken[place]) for place in places if taken[place] > 0}
        yield from (f"{model.model_name}:{unit}={amount}" for amount in sorted(amounts, key=float)[:_MAX_LISTED])
    for promise in certified(model):
        yield f"{model.model_name}:promise={promise}"


def _rounded_up(amount: float) -> str:
    """Write an amount with two digits, not below what it is."""
    shown = f"{amount:.1e}"
    if float(shown) < amount:
        digits, _, exponent = shown.partition("e")
        shown = f"{float(digits) + 0.1:.1f}e{exponent}"
    return f"{float(shown):.12g}"
