"""GET /openapi.json: the routes, the bodies they take, and every status they can answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from mtp_mlx import __version__
from mtp_mlx.server.wire import objects
from mtp_mlx.server.wire.asks import CHAT_FIELDS, COMPLETION_FIELDS
from mtp_mlx.server.wire.fields import HARMLESS, TOKENIZE, Unhonoured
from mtp_mlx.server.wire.requests import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)

Json = dict[str, Any]
REF = "#/components/schemas/{model}"
EVENTS = "text/event-stream"
JSON_TYPE = "application/json"
OF_ALL = (400, 401, 403, 431, 500, 503)
OF_BODY = (404, 408, 413, 415)


@dataclass(frozen=True)
class Route:
    """What one path does. `body` is the model of what it takes, `reply` of what it gives: a model,
    or a media type. `chunk`: of its streams. `is_public`: no key is asked for."""

    method: str
    path: str
    summary: str
    reply: type[BaseModel] | str
    body: type[BaseModel] | None = None
    chunk: type[BaseModel] | None = None
    refused: Mapping[str, Unhonoured] | None = None
    statuses: tuple[int, ...] = OF_ALL
    is_public: bool = False


POST_STATUSES = (*OF_ALL, *OF_BODY)
CHAT = Route(
    "post",
    "/v1/chat/completions",
    "The reply to a conversation",
    objects.ChatCompletion,
    ChatRequest,
    objects.ChatChunk,
    CHAT_FIELDS,
    POST_STATUSES,
)
COMPLETIONS = Route(
    "post",
    "/v1/completions",
    "What follows a prompt",
    objects.Completion,
    CompletionRequest,
    objects.TextChunk,
    COMPLETION_FIELDS,
    POST_STATUSES,
)
MODELS = Route("get", "/v1/models", "The model that is served", objects.Models)
MODEL = Route(
    "get",
    "/v1/models/{model}",
    "The model, by any of its names",
    objects.Model,
    statuses=(*OF_ALL, 404),
)
ROUTES = (
    CHAT,
    COMPLETIONS,
    Route(
        "post",
        "/v1/tokenize",
        "The token ids of a text or a conversation",
        objects.Tokenized,
        TokenizeRequest,
        refused=TOKENIZE,
        statuses=POST_STATUSES,
    ),
    Route(
        "post",
        "/v1/detokenize",
        "The text of token ids",
        objects.Detokenized,
        DetokenizeRequest,
        refused={},
        statuses=POST_STATUSES,
    ),
    MODELS,
    MODEL,
    Route("get", "/v1/status", "Rows, queue, speed and memory; no text", JSON_TYPE),
    Route("get", "/metrics", "Figures for Prometheus", "text/plain"),
    Route("get", "/health", "Is it alive?", objects.Health, is_public=True),
    Route("get", "/ready", "Would a request be taken now?", objects.Health),
    Route("get", "/openapi.json", "This document", JSON_TYPE),
    Route("get", "/", "A page to chat with the model", "text/html", is_public=True),
)
ALIASES = {  # as mlx-lm has them
    "/chat/completions": CHAT,
    "/completions": COMPLETIONS,
    "/models": MODELS,
    "/models/{model}": MODEL,
}


def document(*, has_keys: bool = False, has_page: bool = True) -> Json:
    """The OpenAPI document; has_keys: clients must send one."""
    routes = {route.path: route for route in ROUTES if has_page or route.path != "/"} | ALIASES
    schemas = _schemas(list(routes.values()))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mtp-mlx",
            "version": __version__,
            "description": "Gemma 4 with its MTP drafter. OpenAI's protocol.",
        },
        "paths": {
            path: {route.method: _operation(path, route, has_keys)}
            for path, route in routes.items()
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(path: str, route: Route, has_keys: bool) -> Json:
    statuses = [status for status in route.statuses if status != 401 or has_keys]
    found: Json = {
        "summary": route.summary,
        "operationId": f"{route.method}_{path.strip('/').replace('/', '_') or 'page'}",
        "responses": {
            "200": {"description": "OK", "content": _content(route), "headers": _headers(route)},
            **{str(status): _error(status, route) for status in sorted(statuses)},
        },
    }
    if has_keys and not route.is_public:
        found["security"] = [{"key": []}]
    if "{model}" in path:
        schema = {"type": "string", "minLength": 1}
        found["parameters"] = [{"name": "model", "in": "path", "required": True, "schema": schema}]
    if route.body is not None:
        found["requestBody"] = {
            "required": True,
            "content": {JSON_TYPE: {"schema": _ref(route.body)}},
        }
    return found


def _content(route: Route) -> Json:
    if isinstance(route.reply, str):
        kind = "object" if route.reply == JSON_TYPE else "string"
        return {route.reply: {"schema": {"type": kind}}}
    found = {JSON_TYPE: {"schema": _ref(route.reply)}}
    if route.chunk is not None:
        # OpenAPI before 3.2 has no word for a stream: the schema is that of an event.
        described = f"Events of {route.chunk.__name__}, then [DONE]; or an Error, which ends it."
        event = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
        found[EVENTS] = {"schema": {**event, "description": described}}
    return found


def _headers(route: Route) -> Json:
    text = {"schema": {"type": "string"}}
    found = {"X-Request-Id": text}
    return found if route.body is None else {**found, "X-Ignored-Fields": text}


def _error(status: int, route: Route) -> Json:
    """A fault; a server that is not well says so in the form of its health."""
    models = [objects.Error]
    if route.reply is objects.Health and status == HTTPStatus.SERVICE_UNAVAILABLE:
        models.append(objects.Health)
    refs = [_ref(model) for model in models]
    schema = refs[0] if len(refs) == 1 else {"anyOf": refs}
    return {"description": HTTPStatus(status).phrase, "content": {JSON_TYPE: {"schema": schema}}}


def _ref(model: type[BaseModel]) -> Json:
    return {"$ref": REF.format(model=model.__name__)}


def _schemas(routes: list[Route]) -> Json:
    """The models' schemas; those of bodies with the fields that are refused and harmless."""
    models: list[type[BaseModel]] = [objects.Error]
    for route in routes:
        shown = (route.body, route.reply, route.chunk)
        models += [each for each in shown if isinstance(each, type) and each not in models]
    _, found = models_json_schema([(model, "validation") for model in models], ref_template=REF)
    schemas = found["$defs"]
    for route in routes:
        if route.body is not None:
            own = schemas[route.body.__name__]["properties"]
            own |= {name: _refused(each) for name, each in (route.refused or {}).items()}
            own |= {name: {"description": "It changes nothing."} for name in sorted(HARMLESS)}
    return schemas


def _refused(field: Unhonoured) -> Json:
    return {"enum": [*field.defaults, None], "description": f"Not supported: {field.remedy}."}
