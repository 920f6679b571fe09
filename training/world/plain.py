"""The plain kinds: one question, one answer, no tools."""

from training.world import (
    animals,
    colours,
    counting,
    dates,
    lists,
    objects,
    programs,
    sizes,
    smalltalk,
    spelling,
    stories,
    sums,
    unknown,
)
from training.world.example import Kind

_MODULES = {
    "counting": counting,
    "spelling": spelling,
    "dates": dates,
    "sums": sums,
    "colours": colours,
    "sizes": sizes,
    "animals": animals,
    "stories": stories,
    "lists": lists,
    "json": objects,
    "python": programs,
    "smalltalk": smalltalk,
    "unknown": unknown,
}
PLAIN = {name: Kind(made.ask, made.check, made.thought) for name, made in _MODULES.items()}
