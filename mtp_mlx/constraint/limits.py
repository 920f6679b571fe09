"""What compiling a grammar may take, here and in the process that tries it first."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llguidance import LLMatcher

COMPILE_S = 1.0  # of processor time
MEMORY_BYTES = 512 << 20
ADDRESS_BYTES = 2 << 30
REASON_CHARS = 300
# The library's, save these: a state takes up to 2 kB, and errors repeat the schema otherwise.
LIMITS: dict[str, Any] = {"max_lexer_states": 50_000, "verbose_errors": False}
SILENT = 0  # its log level: it would write on stderr


def brief(matcher: "LLMatcher") -> str:
    """What is wrong with a matcher, on one line."""
    reason = " ".join(matcher.get_error().replace("<non-verbose/>", "").split())
    return "no reply can be so" if reason.startswith("NoExtension") else reason[:REASON_CHARS]
