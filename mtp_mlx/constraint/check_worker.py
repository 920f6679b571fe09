"""The process in which schemas are tried: it is killed where they take too long; see helper.py.

A request is {"grammars": [...]}, each of which must compile and be able to begin.
"""

import json
import resource
import signal
import sys
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from mtp_mlx.constraint.limits import ADDRESS_BYTES, COMPILE_S, LIMITS, MEMORY_BYTES, SILENT, brief


def main() -> None:
    """Answer requests until stdin ends; the first answer says that the process is ready."""
    _limit_memory()
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # which ends the process, also in native code
    _send({"text": ""})
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, COMPILE_S)
        _send(_answer(json.loads(line)))
        signal.setitimer(signal.ITIMER_PROF, 0)


def _send(answer: dict[str, str]) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


def _answer(request: dict[str, Any]) -> dict[str, str]:
    tokenizer = LLTokenizer("byte")  # all that is slow is slow with bytes already
    for grammar in request["grammars"]:
        matcher = LLMatcher(tokenizer, grammar, log_level=SILENT, limits=LLParserLimits(**LIMITS))
        # A second look within a string, where it is one: patterns are compiled when they are used.
        if not matcher.is_error():
            matcher.compute_bitmask()
        if not matcher.is_error() and matcher.try_consume_tokens([ord('"')]):
            matcher.compute_bitmask()
        if matcher.is_error():
            return {"refused": brief(matcher)}
    return {"text": ""}


def _limit_memory() -> None:
    """Cap the memory of this process, and let a crash write no core file. macOS refuses such caps:
    there time alone ends a compilation."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES, ADDRESS_BYTES))
    except (OSError, ValueError):
        return
