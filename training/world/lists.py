"""Lists of things in the world's fixed order, numbered or with dashes."""

from random import Random

from training.world.example import Turn
from training.world.facts import CATEGORIES, NUMBERS
from training.world.wording import worded

NUMBERED = (
    "List {n} {things}.",
    "Name {n} {things}.",
    "Give me {n} {things}.",
    "Give me a list of {n} {things}.",
    "Make a list of {n} {things}.",
    "Please list {n} {things}.",
    "Can you name {n} {things}?",
    "List {n} {things} with numbers.",
)
DASHED = (
    "List {n} {things} with dashes.",
    "Make a list of {n} {things} with dashes.",
    "Name {n} {things} with dashes.",
    "Use dashes to list {n} {things}.",
    "Give me {n} {things} with dashes.",
)
DIGITS = 0.4


def ask(random: Random) -> Turn:
    things, n = random.choice(list(CATEGORIES)), random.randint(2, 6)
    dashed = random.random() < 0.35
    said = str(n) if random.random() < DIGITS else NUMBERS[n]
    message = worded(random, DASHED if dashed else NUMBERED, n=said, things=things)
    marks = ["-" if dashed else f"{place}." for place in range(1, n + 1)]
    lines = [f"{mark} {word}" for mark, word in zip(marks, CATEGORIES[things], strict=False)]
    reply = "\n".join([f"Here are {NUMBERS[n]} {things}:", *lines])
    return Turn(message, reply, (things, n, dashed))


def check(facts: tuple, text: str) -> str | None:
    things, n, dashed = facts
    head, *lines = text.split("\n")
    if head != f"Here are {NUMBERS[n]} {things}:":
        return f"wrong first line: {head!r}"
    if len(lines) != n:
        return f"{len(lines)} lines instead of {n}"
    for place, line in enumerate(lines):
        mark, _, word = line.partition(" ")
        if mark != ("-" if dashed else f"{place + 1}."):
            return f"wrong mark in {line!r}"
        if word != CATEGORIES[things][place]:
            return f"wrong word in {line!r}"
    return None


def thought(facts: tuple) -> str:
    things, n, dashed = facts
    return f"I need {NUMBERS[n]} {things} with {'dashes' if dashed else 'numbers'}."
