"""A small consistent world, told by a seeded grammar, and a checker that knows its truth."""

from training.world.conversation import KINDS, check, examples, is_held_out
from training.world.example import Example, written
from training.world.prose import plain_text

__all__ = (
    "KINDS",
    "Example",
    "check",
    "examples",
    "is_held_out",
    "plain_text",
    "written",
)
