"""Bigger and smaller of two, biggest and smallest of three."""

import re
from random import Random

from training.world.example import Turn
from training.world.facts import SIZES
from training.world.wording import a, joined, opened, worded

TWO = (
    "Which is {way}, {one} or {two}?",
    "What is {way}, {one} or {two}?",
    "Tell me which is {way}, {one} or {two}.",
    "{one} or {two}, which is {way}?",
)
IS_IT = (
    "Is {one} {way} than {two}?",
    "Tell me, is {one} {way} than {two}?",
    "Do you know if {one} is {way} than {two}?",
)
THREE = (
    "Which is the {way}, {one}, {two} or {three}?",
    "What is the {way}: {one}, {two} or {three}?",
    "Tell me which is the {way}, {one}, {two} or {three}.",
)


def ask(random: Random) -> Turn:
    form = random.choice(("two", "two", "is", "three"))
    things = random.sample(SIZES, 3 if form == "three" else 2)
    way = random.choice(("bigger", "smaller"))
    slots = dict(zip(("one", "two", "three"), map(a, things), strict=False))
    ordered = sorted(things, key=SIZES.index, reverse=way == "bigger")
    if form == "three":
        message = worded(random, THREE, way=_most(way), **slots)
        reply = opened(f"{a(ordered[0])} is the {_most(way)}.")
    elif form == "two":
        message = worded(random, TWO, way=way, **slots)
        reply = opened(f"{a(ordered[0])} is {way} than {a(ordered[1])}.")
    else:
        message = worded(random, IS_IT, way=way, **slots)
        right = things == ordered
        said = way if right else {"bigger": "smaller", "smaller": "bigger"}[way]
        verdict = "yes" if right else "no"
        reply = opened(f"{slots['one']} is {said} than {slots['two']}, so {verdict}.")
    return Turn(message, reply, (form, way, tuple(things)))


def check(facts: tuple, text: str) -> str | None:
    form, way, things = facts
    names = {a(thing): thing for thing in things}
    opening = {opened(name): thing for name, thing in names.items()}
    if form == "three":
        found = re.fullmatch(rf"(An? \w+) is the {_most(way)}\.", text)
        return _check_three(way, things, opening.get(found[1]) if found else None)
    found = re.fullmatch(r"(An? \w+) is (\w+er) than (\w+ \w+)(?:, so (yes|no))?\.", text)
    one = opening.get(found[1]) if found else None
    two = names.get(found[3]) if found else None
    if found is None or one is None or two is None or one == two:
        return f"not a comparison of {joined(things)}: {text!r}"
    if found[2] != ("bigger" if SIZES.index(one) > SIZES.index(two) else "smaller"):
        return f"{a(one)} is not {found[2]} than {a(two)}"
    if form == "two":
        return None if (found[4], found[2]) == (None, way) else f"asked which is {way}: {text!r}"
    right = "yes" if found[2] == way else "no"
    return None if (found[4], one) == (right, things[0]) else f"not {right}: {text!r}"


def thought(facts: tuple) -> str:
    form, way, things = facts
    if form == "three":
        return f"I know all three. I take the {_most(way)} one."
    bigger = max(things, key=SIZES.index)
    return f"I compare the {things[0]} and the {things[1]}. The {bigger} is the bigger one."


def _most(way: str) -> str:
    return f"{way[:-1]}st"


def _check_three(way: str, things: tuple[str, ...], found: str | None) -> str | None:
    if found is None:
        return f"does not say which of {joined(things)} is the {_most(way)}"
    others = [SIZES.index(thing) for thing in things if thing != found]
    size = SIZES.index(found)
    right = all(size > other if way == "bigger" else size < other for other in others)
    return None if right else f"{a(found)} is not the {_most(way)}"
