"""The options of the API from the fields that all generating requests have.

What is switched off is left out, so that it takes no part in what it costs.
"""

from typing import Any

from mtp_mlx.errors import RequestError, Unsupported
from mtp_mlx.fields import shown
from mtp_mlx.server.served import NO_DRAFTER, Served
from mtp_mlx.server.wire.requests import Generation, JsonObject, JsonSchema

SAME = {"temperature", "top_p", "min_p", "num_draft_tokens", "cache", "stop"}
OFF = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}


def common_options(asked: Generation, served: Served) -> dict[str, Any]:
    """Raises RequestError where two fields contradict each other or a value has no place here."""
    given = asked.model_dump(include={*SAME, *OFF}, exclude_none=True)
    found: dict[str, Any] = dict(served.sampling)
    # What is off in itself is told only where it switches off what the server was started with.
    found |= {n: value for n, value in given.items() if value != OFF.get(n) or n in found}
    if asked.top_k is not None:
        found["top_k"] = max(asked.top_k, 0)
    limit = _max_tokens(asked)
    if limit is not None:
        found["max_tokens"] = limit
    if asked.logit_bias:
        found["logit_bias"] = _logit_bias(asked.logit_bias, served)
    if isinstance(asked.response_format, JsonObject | JsonSchema):
        found["response_format"] = _format(asked.response_format)
    if _is_plain(asked, served):
        found["num_draft_tokens"] = 0
    return found


def _max_tokens(asked: Generation) -> int | None:
    old, new = asked.max_tokens, asked.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise RequestError(
            f"max_tokens {old} and max_completion_tokens {new} differ; give one of them",
            param="max_tokens",
        )
    return new if old is None else old


def _format(asked: JsonObject | JsonSchema) -> dict[str, Any]:
    """The format in OpenAI's form; nulls inside the schema mean something."""
    if isinstance(asked, JsonObject):
        return {"type": asked.type}
    own = asked.json_schema
    named = {"name": own.name, "description": own.description, "strict": own.strict}
    schema = {name: value for name, value in named.items() if value is not None}
    return {"type": asked.type, "json_schema": {**schema, "schema": own.schema_}}


def _logit_bias(given: dict[str, float], served: Served) -> dict[int, float]:
    rows, found = served.llm.config.vocab_size, {}
    for name, bias in given.items():
        if int(name) >= rows:
            raise RequestError(
                f"logit_bias.{name} is no token id; those of this model go from 0 to {rows - 1}",
                param=f"logit_bias.{name}",
            )
        if int(name) in found:
            raise RequestError(
                f"logit_bias.{name} names a token for the second time", param=f"logit_bias.{name}"
            )
        found[int(name)] = bias
    return found


def _is_plain(asked: Generation, served: Served) -> bool:
    """Whether the request names no drafter. Raises Unsupported for one that is not loaded."""
    name = asked.draft_model
    if name is None or name.casefold() in ("default", "default_model"):
        return False
    if name.casefold() == NO_DRAFTER:
        if asked.num_draft_tokens not in (None, 0, "auto"):
            raise RequestError(
                f'draft_model "none" and num_draft_tokens {asked.num_draft_tokens} contradict each '
                "other; leave one out",
                param="draft_model",
            )
        return True
    if name.casefold() not in {each.casefold() for each in served.draft_names}:
        loaded = "none" if served.draft_model is None else f"{served.draft_model} or none"
        raise Unsupported(
            f"draft_model {shown(name)} is not loaded; leave it out, or give {loaded}",
            param="draft_model",
        )
    return False
