"""System One: `POST /v1/systemone`, the Decider as a decision model.

A decision model reads a state and answers typed questions about it with probabilities, and writes no text. The Decider answers the
one question that it was trained for: which member should answer this. So a question must be a `choice`, and its options members; other
questions are refused, since whatever was said to them would be made up. Options' descriptions and instructions are not read, no member
is asked, and nothing is spent.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from langchain_rlfocal.chat_models import RLFocalChatModel
from langchain_rlfocal.chat_models.answering import query_of
from langchain_rlfocal.chat_models.decider import choose_member, query_of_state
from langchain_rlfocal.records import Query
from langchain_rlfocal.server.bodies import read_body
from langchain_rlfocal.server.callers import require
from langchain_rlfocal.server.errors import ApiError
from langchain_rlfocal.server.messages import messages_of
from langchain_rlfocal.server.names import choice_of
from langchain_rlfocal.server.options import options_of
from langchain_rlfocal.server.state import ServerState

MAX_QUESTIONS = 64
"""Questions of a request; each is one decision."""

_OPTIONS = frozenset({"cost_weight", "task"})
_MEDIA = ("images", "assets", "audio", "videos")


async def handle(request: Request) -> Response:
    """Answer questions about a state."""
    serving: ServerState = request.app.state.serving
    require(request, "answers")
    serving.admission.check_room()
    body = await read_body(request)
    questions = _questions_of(body, known=serving.model.pool.names)
    options = _options_of(body, serving.model)
    query = _query_of(body, task=options.get("task", serving.model.task), most=serving.config.max_messages)
    async with serving.admission.answer(timeout_s=serving.config.timeout_s):
        answers = await asyncio.to_thread(_answers, serving, query, questions, options)
    usage = {"input_tokens": 0, "output_tokens": 0}  # of members, none of which was asked
    return JSONResponse({"model": serving.model.serving.policy.policy_id, "answers": answers, "usage": usage})


def _answers(
    serving: ServerState, query: Query, questions: Mapping[str, Sequence[str]], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Answer each question; the policy's embedder may take its time, so this runs in a thread."""
    model = serving.model
    serves, breakers = model.serving, model.breakers
    cost_weight = options.get("cost_weight", model.cost_weight)
    answers = {}
    for name, offered in questions.items():
        known = [member for member in model.pool.names if member in offered]
        resting = {member for member, breaker in breakers.items() if breaker.state == "open"} | {*serves.left_out}
        available = [member for member in known if member not in resting] or known
        choice, shares = choose_member(
            serves.policy, query, offered, available=available, cost_weight=cost_weight, name=name
        )
        answers[name] = {"type": "choice", "choice": choice, "probabilities": shares, "confidence": shares[choice]}
    return answers


def _questions_of(body: Mapping[str, Any], *, known: Sequence[str]) -> dict[str, list[str]]:
    """Read the questions, as each one's options.

    Raises:
        ApiError: There is none, or one is no choice among members.
    """
    media = next((name for name in _MEDIA if body.get(name) is not None), None)
    if media is not None:
        raise ApiError(400, "The Decider reads texts alone. Leave it out.", code="unsupported_parameter", param=media)
    questions = body.get("questions")
    if not isinstance(questions, dict) or not 0 < len(questions) <= MAX_QUESTIONS:
        raise ApiError(
            400,
            f"It must be an object of 1 to {MAX_QUESTIONS} questions by name, such as "
            '{"route": {"type": "choice", "criteria": {"small": null, "large": null}}}.',
            param="questions",
        )
    return {name: _options_in(question, known, param=f"questions.{name[:60]}") for name, question in questions.items()}


def _options_in(question: Any, known: Sequence[str], *, param: str) -> list[str]:
    kind = question.get("type") if isinstance(question, dict) else None
    if kind != "choice":
        raise ApiError(
            400,
            f'It must be "choice", whose options are members, got {kind!r:.60}: the Decider answers which member should be asked, '
            "and nothing else. Ask another decision model.",
            param=f"{param}.type",
            code="unsupported_value",
        )
    criteria = question.get("criteria")
    if not isinstance(criteria, dict) or not criteria:
        raise ApiError(
            400,
            f'It must be an object whose keys are members, such as {{"{known[0]}": null}}.',
            param=f"{param}.criteria",
        )
    unknown = [name[:60] for name in criteria if name not in known]
    if unknown:
        raise ApiError(
            400,
            f"It must have members as keys; unknown: {', '.join(unknown[:8])}; known: {', '.join(known)}. Name members, or ask "
            "another decision model.",
            param=f"{param}.criteria",
            code="unsupported_value",
        )
    return [*criteria]


def _options_of(body: Mapping[str, Any], model: RLFocalChatModel) -> dict[str, Any]:
    """Read what decisions depend on besides the state.

    Raises:
        ApiError: The model is not the ensemble, or an option says nothing to a choice of one member.
    """
    choice = choice_of(body.get("model", model.model_name), model)
    if choice.kind != "ensemble":
        rule = f"It must be `{model.model_name}`, whose Decider decides, got `{choice.name}`."
        raise ApiError(400, f"{rule} Members are options of a question.", param="model")
    options = options_of(body.get("rlfocal"), model)
    for name in options:
        if name not in _OPTIONS:
            rule = "It says nothing to a choice of one member. Set `cost_weight` or `task`."
            raise ApiError(400, rule, code="unsupported_parameter", param=f"rlfocal.{name}")
    return options


def _query_of(body: Mapping[str, Any], *, task: str | None, most: int) -> Query:
    """Make the query of a state: of a conversation in OpenAI's form as answers do it, else its text, or its JSON.

    Raises:
        ApiError: There is no state.
    """
    state = body.get("state")
    if not isinstance(state, str | dict | list) or not (state.strip() if isinstance(state, str) else state):
        raise ApiError(400, "It must be a text, an object or a list, which is not empty.", param="state")
    turns = state.get("messages") if isinstance(state, dict) else state
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) and "role" in turn for turn in turns):
        return query_of_state(state, task=task)
    try:
        return query_of(messages_of(turns, most=most), task=task)
    except ApiError as error:
        raise error.renamed({"messages": "state.messages" if isinstance(state, dict) else "state"}) from None
