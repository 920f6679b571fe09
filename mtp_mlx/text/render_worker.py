"""The process in which chat templates run: JSON lines in, JSON lines out, until stdin ends.

A template is a program from the internet. Jinja's immutable sandbox stops escapes, mutation and
long ranges; what it lets pass (nested loops, huge strings, recursion) ends here at a limit, or with
this process, which helper.py starts, times and kills.

A request is {"source": template, "values": variables, or null to compile only}. The answer has one
key: "text"; "refused", what Jinja or the template says against the chat; or "overrun", which limit
was exceeded, as the end of a sentence that begins with "the chat template".

Only Jinja and the standard library are imported, so that the process is there in a tenth of a
second. Templates get the filters and globals that Transformers gives them.
"""

import functools
import json
import os
import resource
import signal
import sys
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

OUTPUT_LIMIT_BYTES = 4 << 20
MEMORY_LIMIT_BYTES = 256 << 20
ADDRESS_LIMIT_BYTES = 1 << 30  # the C library maps its locales, which are no memory in use
CHECK_MEMORY_S = 0.02  # of processor time
ALARM_S = 3.0  # beyond the parent's own limit: this ends a loop whose parent has died
MESSAGE_CHARS = 300  # of a template's error that are passed on
REMEMBERED = 8  # compiled templates

MEMORY_OVERRUN = {"overrun": f"needs more than {MEMORY_LIMIT_BYTES >> 20} MiB of memory"}
OUTPUT_OVERRUN = {"overrun": f"wrote more than {OUTPUT_LIMIT_BYTES:,} bytes"}

# What a template can raise on data it did not expect: Jinja's errors, and Python's from inside it.
TEMPLATE_ERRORS = (
    jinja2.TemplateError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


def main() -> None:
    """Answer requests until stdin ends; the first answer says that the process is ready."""
    _limit_memory()
    _send({"text": ""})
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_REAL, ALARM_S)
        try:
            _send(_answer(json.loads(line)))
        except MemoryError:
            _send(MEMORY_OVERRUN)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _send(answer: dict[str, str]) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


def _answer(request: dict[str, Any]) -> dict[str, str]:
    """What there is to say to a request. Raises MemoryError."""
    try:
        template = _compiled(request["source"])
        return {"text": ""} if request["values"] is None else _render(template, request["values"])
    except TEMPLATE_ERRORS as error:
        return {"refused": _brief(error)}


@functools.lru_cache(maxsize=REMEMBERED)
def _compiled(source: str) -> jinja2.Template:
    return _environment().from_string(source)


def _render(template: jinja2.Template, values: dict[str, Any]) -> dict[str, str]:
    parts: list[str] = []
    size = 0
    for part in template.generate(values):
        size += len(part.encode("utf-8", "surrogatepass"))
        if size > OUTPUT_LIMIT_BYTES:
            return OUTPUT_OVERRUN
        parts.append(part)
    return {"text": "".join(parts)}


def _brief(error: BaseException) -> str:
    """An error's message on one line, cut to a reasonable length."""
    return " ".join(str(error).split())[:MESSAGE_CHARS] or type(error).__name__


def _limit_memory() -> None:
    """Cap the memory of this process, and let a crash write no core file.

    Linux honours the limits. macOS refuses any below what a process has mapped from its start,
    hundreds of GiB: there the memory in use is looked at while a template runs.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_LIMIT_BYTES, ADDRESS_LIMIT_BYTES))
    except (OSError, ValueError):
        _watch_memory()


def _watch_memory() -> None:
    """From now on, answer that the limit is exceeded and end, when it is.

    Looks at the most memory in use so far, which some systems let a process inherit.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def check(*_: object) -> None:
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
        if grown * unit > MEMORY_LIMIT_BYTES:
            os.write(sys.stdout.fileno(), json.dumps(MEMORY_OVERRUN).encode() + b"\n")
            os._exit(1)

    signal.signal(signal.SIGPROF, check)
    signal.setitimer(signal.ITIMER_PROF, CHECK_MEMORY_S, CHECK_MEMORY_S)


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks the reply for training; it changes nothing in what is written."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    """The sandbox a chat template expects; the same settings and filters as in Transformers."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, _Generation]
    )
    environment.filters["tojson"] = _to_json
    del environment.globals["lipsum"]
    functions: dict[str, Any] = {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
    }
    environment.globals.update(functions)
    return environment


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
