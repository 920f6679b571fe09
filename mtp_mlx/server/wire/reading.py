"""Reads the body of a request into one of the models of requests.py; every message is ours."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mtp_mlx.errors import RequestError
from mtp_mlx.fields import shown, shown_name
from mtp_mlx.server.wire.fields import HARMLESS, Unhonoured
from mtp_mlx.server.wire.requests import PATTERNS
from mtp_mlx.text.tokenizer import check_surrogates

Model = TypeVar("Model", bound=BaseModel)
Json = dict[str, Any]

# What a value must be, by pydantic's names of errors; {} are of the error's context.
KINDS = {
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}
BOUNDS = {
    "literal_error": "{expected}",
    "greater_than_equal": "at least {ge}",
    "greater_than": "above {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "below {lt}",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
    "too_short": "a list of at least {min_length}",
    "too_long": "of at most {max_length} entries",
    "finite_number": "a finite number",
    "union_tag_invalid": "one of {expected_tags}",
}
ANY_FORM = "of the form that /openapi.json gives"
MAX_NAME = 64  # characters of a name in a header
MAX_NAMES = 32


def open_body(body: object, refused: Mapping[str, Unhonoured]) -> Json:
    """The body without nulls and harmless fields. Raises RequestError: Unsupported for a field that
    is known and not honoured."""
    if not isinstance(body, dict):
        raise RequestError(f"the body must be a JSON object, found {brief(body)}")
    check_json(body)
    given = {
        name: value for name, value in body.items() if value is not None and name not in HARMLESS
    }
    for name, value in given.items():
        if name in refused:
            refused[name].check(name, value)
    return given


def as_model(model: type[Model], given: Json) -> Model:
    """A body as a model. Raises RequestError."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise explain(error.errors(include_url=False), given) from None


def unknown(model: type[BaseModel], given: Json, refused: Mapping[str, Unhonoured]) -> list[str]:
    """The names in a body that nobody defines."""
    known = {field.alias or name for name, field in model.model_fields.items()}
    return [name for name in given if name not in known and name not in refused]


def header_of(ignored: tuple[str, ...]) -> str | None:
    """The names for a header: a client may have written anything into them."""
    names = [
        "".join(c if c.isascii() and (c.isalnum() or c in "_.-[]") else "?" for c in name)
        for name in ignored[:MAX_NAMES]
    ]
    return ", ".join(name[:MAX_NAME] for name in names) or None


def check_json(body: Json) -> None:
    """Raises RequestError for a lone surrogate, NaN or infinity anywhere in a body."""
    for path, value in _leaves(body):
        if isinstance(value, str):
            where = spell(path) or "a name"
            check_surrogates(value, where, spell(path) or None)
        elif isinstance(value, float) and not math.isfinite(value):
            where = spell(path)
            raise RequestError(f"{where} must be a finite number, found {value}", param=where)


Path = tuple[str | int, ...]


def _leaves(body: Json) -> Iterator[tuple[Path, object]]:
    """Every value in a body that is no list or object, and every name, which has no path."""
    left: list[tuple[Path, object]] = [((), body)]
    while left:
        path, value = left.pop()
        if isinstance(value, dict):
            yield from (((), name) for name in value)
            left += [((*path, name), inner) for name, inner in value.items()]
        elif isinstance(value, list):
            left += [((*path, at), inner) for at, inner in enumerate(value)]
        else:
            yield path, value


def spell(path: Path) -> str:
    """messages[3].content"""
    parts = [f"[{part}]" if isinstance(part, int) else f".{shown_name(part)}" for part in path]
    return "".join(parts).removeprefix(".")


def brief(value: object) -> str:
    """An untrusted value on one short line; of lists and objects the kind alone."""
    if isinstance(value, dict):
        return "an object"
    return f"a list of {len(value):,}" if isinstance(value, list) else shown(value)


@dataclass(frozen=True)
class Fault:
    """What pydantic found wrong: where, what stands there, and what is allowed there."""

    path: Path
    value: object
    kind: str
    context: Mapping[str, Any]

    @staticmethod
    def of(error: ErrorDetails, given: Json) -> "Fault":
        """pydantic's names of the alternatives of a field are no part of the path."""
        kind, context = error["type"], error.get("ctx", {})
        path, value = _follow(error["loc"], given)
        if kind == "missing":
            path = (*path, error["loc"][-1])
        elif error["loc"][-1] == "[key]":
            value = path[-1]
        elif kind.startswith("union_tag") and isinstance(value, dict):
            name = context["discriminator"].strip("'")
            path, value = (*path, name), value.get(name)
            kind = "missing" if value is None else kind
        return Fault(path, value, kind, context)

    @property
    def is_of_kind(self) -> bool:
        """Is the value of another type altogether?"""
        return self.kind in KINDS or self.kind == "literal_error"

    @property
    def expected(self) -> str:
        if self.kind == "string_pattern_mismatch":
            return PATTERNS[self.context["pattern"]]
        values = {
            name: f"{value:g}" if isinstance(value, float) else value
            for name, value in self.context.items()
        }
        return (KINDS | BOUNDS).get(self.kind, ANY_FORM).format(**values)

    @property
    def found(self) -> str:
        is_counted = self.kind in ("string_too_long", "too_long")
        if is_counted and isinstance(self.value, str | dict):
            return f"{len(self.value):,}"
        return brief(self.value)


def explain(errors: list[ErrorDetails], given: Json) -> RequestError:
    """One line on the deepest fault: of the forms that a value may have, the one that was meant."""
    faults = [Fault.of(error, given) for error in errors]
    deepest = max(faults, key=lambda fault: len(fault.path))
    where = spell(deepest.path)
    if deepest.kind == "missing":
        return RequestError(f"{where} is missing", param=where)
    here = [fault for fault in faults if fault.path == deepest.path]
    told = [fault for fault in here if not fault.is_of_kind] or here
    expected = " or ".join(dict.fromkeys(fault.expected for fault in told))
    return RequestError(f"{where} must be {expected}, found {told[0].found}", param=where)


def _follow(loc: tuple[int | str, ...], given: Json) -> tuple[Path, object]:
    """As far as the parts of `loc` lead into a body."""
    path: list[str | int] = []
    value: Any = given
    for part in loc:
        is_key = isinstance(value, dict) and isinstance(part, str) and part in value
        is_index = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if is_key or is_index:
            path.append(part)
            value = value[part]
    return tuple(path), value
