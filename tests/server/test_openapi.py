"""The document is valid OpenAPI, tells of every field, and its examples of errors are ours."""

import json

import jsonschema_rs
import pytest
import schemathesis

from mtp_mlx.server.errors import Refused, error_answer
from mtp_mlx.server.wire.fields import CHAT_ONLY, COMMON, HARMLESS
from mtp_mlx.server.wire.objects import Error
from mtp_mlx.server.wire.openapi import ALIASES, ROUTES, document
from mtp_mlx.server.wire.requests import ChatRequest

DOCUMENT = document()


def test_it_is_read_by_a_client_of_openapi():
    read = schemathesis.openapi.from_dict(json.loads(json.dumps(DOCUMENT)))
    found = {(each.ok().method.lower(), each.ok().path) for each in read.get_all_operations()}
    routes = {route.path: route for route in ROUTES} | ALIASES
    assert found == {(route.method, path) for path, route in routes.items()}


def test_every_schema_is_valid_and_every_reference_leads_somewhere():
    schemas = DOCUMENT["components"]["schemas"]
    for schema in schemas.values():
        jsonschema_rs.meta.validate(schema)
    text = json.dumps(DOCUMENT)
    named = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert named <= set(schemas)
    assert "__" not in text, "two models of one name"


def test_every_field_is_told_of():
    told = DOCUMENT["components"]["schemas"]["ChatRequest"]["properties"]
    assert set(told) == {*ChatRequest.model_fields, *COMMON, *CHAT_ONLY, *HARMLESS}
    assert told["best_of"] == {"enum": [1, None], "description": "Not supported: use n."}


def test_keys_and_the_page_are_told_of_where_there_are_any():
    open_, closed = document(has_page=False), document(has_keys=True)
    assert "/" not in open_["paths"] and "/" in closed["paths"]
    chat = "/v1/chat/completions"
    assert "401" not in open_["paths"][chat]["post"]["responses"]
    assert "401" in closed["paths"][chat]["post"]["responses"]
    assert closed["paths"][chat]["post"]["security"] == [{"key": []}]
    assert "security" not in closed["paths"]["/health"]["get"]


@pytest.mark.parametrize("status", [400, 403, 404, 408, 413, 415, 431, 500, 503])
def test_every_error_reply_is_of_the_form_that_is_told(status):
    body = error_answer(Refused(status, "a_code", "a message", param="a")).body
    assert Error.model_validate(body)
    assert str(status) in DOCUMENT["paths"]["/v1/completions"]["post"]["responses"]
