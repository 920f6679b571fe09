"""How the published pairs are named: sizes, what converters add to a name, and what a drafter's
name adds to its target's."""

import re

SIZES = ("e2b", "e4b", "12b", "26b", "31b")
DRAFTER_SUFFIX = "-assistant"

# e4b, e4b-4bit, gemma-4-e4b-it-8bit, gemma-4-26b-a4b-it-mxfp4
_SPELLED = re.compile(rf"(?:gemma-4-)?({'|'.join(SIZES)})(?:-a4b)?(?:-it)?(?:-(.+))?")
_CONVERTED = re.compile(r"-(\d+bit|bf16|mxfp\d+|nvfp4)$", re.IGNORECASE | re.ASCII)


def spelled(name: str) -> tuple[str, str] | None:
    """The size that a name means and what follows it, 4bit or nothing, in small letters; None for
    what is no such name."""
    found = _SPELLED.fullmatch(name.lower())
    return None if found is None else (found[1], found[2] or "")


def unconverted(name: str) -> str:
    """A name without what converters add: gemma-4-E4B-it for gemma-4-E4B-it-4bit."""
    return _CONVERTED.sub("", name)
