"""The FastAPI application of everything but the token paths, with our errors everywhere."""

from __future__ import annotations

from collections.abc import Sequence

import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.dependencies import models
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.telemetry import TelemetryConfig
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from app import __version__
from app.api.documented import TOKEN_PATHS, document_token_paths
from app.api.errors import error_headers, shown
from app.api.inbound import Inbound
from app.api.page import add_page
from app.config.problems import Path, nearest
from app.config.validate import model_at
from app.config.wording import SHAPES, place_of, worded
from app.core.errors import (
    GatewayError,
    InternalError,
    InvalidJson,
    InvalidValue,
    MethodNotAllowed,
    NotFound,
    Unprocessable,
)
from app.wire.objects import write_error

NOT_SPOKEN = {
    "/v1/responses": "This gateway does not speak the Responses API; set the client to chat completions"
    " (/v1/chat/completions). docs/clients.md says how, client by client.",
    "/v1/messages": "This gateway does not speak Anthropic's Messages API with its clients; ask for Claude as for any"
    " model, at /v1/chat/completions.",
    "/v1/completions": "This gateway does not speak the old completions API; use /v1/chat/completions.",
}
"""What clients ask for that come from somewhere else, and where they should go."""

UNTOLD: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
"""The framework's own telemetry would send stack traces and the words of errors wherever the environment says. Ours
knows what may leave the process."""

DESCRIPTION = "OpenAI-compatible gateway that sends each request to the cheapest model that can do it."


def fastapi_app(routers: Sequence[APIRouter]) -> FastAPI:
    app = FastAPI(
        title="Tierway",
        version=__version__,
        description=DESCRIPTION,
        strict_content_type=False,
        docs_url=None,  # the framework's pages load scripts of others
        redoc_url=None,
        telemetry=UNTOLD,
        redirect_slashes=False,  # a redirect would have no error of ours, and many clients would not follow it
    )
    app.state.routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    for router in routers:
        app.include_router(router)
    for kind in (GatewayError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _handle)
    document_token_paths(app)
    add_page(app)
    return app


def forget_endpoints() -> None:
    """To be called once an app is no longer used: the framework remembers every endpoint it ever saw, and with it all
    that the endpoint was made with."""
    for value in vars(models).values():
        if callable(clear := getattr(value, "cache_clear", None)):
            clear()


async def _handle(request: Request, error: Exception) -> Response:
    request_id = Inbound.of(request.scope, request.receive, _nowhere).request_id
    seen = shown(_as_ours(request, error), request_id)
    body = write_error(seen)
    headers = {name.decode(): value.decode() for name, value in error_headers(seen, request_id, body)}
    return Response(body, seen.status, headers)


def _as_ours(request: Request, error: Exception) -> GatewayError:
    match error:
        case GatewayError():
            return error
        case RequestValidationError():
            first = error.errors()[0]
            if first["type"] == "json_invalid":
                return InvalidJson("The body is not valid JSON.")
            path = place_of(first)[1:]
            field = ".".join(map(str, path))
            if not path and isinstance(first.get("input"), bytes):  # which the framework did not take for JSON
                return Unprocessable("The body must be JSON, sent with 'content-type: application/json'.")
            said = _unknown_field(request, path) if first["type"] == "extra_forbidden" else worded(first)
            if said in SHAPES:
                said += _example(request, path)
            return Unprocessable(f"{field or 'The body'}: {said}", param=field or None)
        case HTTPException(__cause__=GatewayError() as ours):  # raised by the body while the framework read it
            return ours
        case HTTPException(status_code=405, headers=headers):
            allow = _methods(request, (headers or {}).get("Allow", "GET"))
            return MethodNotAllowed(f"{request.url.path[:200]} does not take {request.method} requests.", allow=allow)
        case HTTPException(status_code=404):
            asked = request.url.path[:200]
            return NotFound(NOT_SPOKEN.get(asked) or f"There is nothing at {asked}. {_where(request, asked)}")
        case HTTPException(status_code=status) if status < 500:
            return InvalidValue(str(error.detail))
        case _:
            return InternalError("An error of the gateway.")


def _where(request: Request, asked: str) -> str:
    """Where it may be: most who miss, miss the `/v1` of their base URL, or have it twice."""
    known = {route.path for route in request.app.state.routes}.union(TOKEN_PATHS)
    for meant in (f"/v1{asked}", asked.removeprefix("/v1")):
        if meant in known and meant != asked:
            return f"Did you mean {meant}? Then mend the client's base URL, which ends in /v1, once."
    return "The API begins with /v1; /docs lists all there is."


def _methods(request: Request, of_one_route: str) -> str:
    """Every method that the path takes: the framework names those of the first route it found there."""
    found = {*of_one_route.split(", ")}
    for route in request.app.state.routes:
        if route.path_regex.match(request.url.path):
            found |= route.methods
    return ", ".join(sorted(found))


def _unknown_field(request: Request, path: Path) -> str:
    """Says which field was probably meant, or which there are."""
    model = _model(request, path[:-1])
    valid = list(model.model_fields) if model else []
    meant = nearest(str(path[-1]), valid)
    return f"unknown field; did you mean {meant}?" if meant else f"unknown field; there are: {', '.join(valid)}"


def _example(request: Request, path: Path) -> str:
    model = _model(request, path[:-1]) if path else None
    examples = model.model_fields[str(path[-1])].examples if model else None
    return f", like {orjson.dumps(examples[0]).decode()}" if examples else ""


def _model(request: Request, path: Path) -> type[BaseModel] | None:
    """What describes this part of the body."""
    body = getattr(request.scope.get("route"), "body_field", None)
    return model_at(body.field_info.annotation, path) if body else None


async def _nowhere(message: object) -> None:
    """An error handler answers by its return value."""
