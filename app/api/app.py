"""The FastAPI application of everything but the token paths, with our errors everywhere."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from app import __version__
from app.api.documented import document_token_paths
from app.api.errors import error_headers, shown
from app.api.inbound import Inbound
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

DESCRIPTION = "OpenAI-compatible gateway that sends each request to the cheapest model that can do it."


def fastapi_app(routers: Sequence[APIRouter]) -> FastAPI:
    app = FastAPI(title="Tierway", version=__version__, description=DESCRIPTION)
    for router in routers:
        app.include_router(router)
    for kind in (GatewayError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _handle)
    document_token_paths(app)
    return app


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
            field = ".".join(str(part) for part in first["loc"][1:])
            return Unprocessable(f"{field}: {first['msg']}" if field else str(first["msg"]), param=field or None)
        case HTTPException(status_code=405, headers=headers):
            allow = (headers or {}).get("Allow", "GET")
            return MethodNotAllowed(f"{request.url.path[:200]} does not take {request.method} requests.", allow=allow)
        case HTTPException(status_code=404):
            return NotFound(f"There is nothing at {request.url.path[:200]}.")
        case HTTPException(status_code=status) if status < 500:
            return InvalidValue(str(error.detail))
        case _:
            return InternalError("An error of the gateway.")


async def _nowhere(message: object) -> None:
    """An error handler answers by its return value."""
