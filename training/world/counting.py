"""Counting up, down and in steps, and a number's neighbours."""

import re
from random import Random

from training.world.example import Turn
from training.world.facts import NUMBERS
from training.world.wording import worded

HIGHEST = 30
NUMBER = r"(?:0|[1-9]\d{0,2})"
STEP_NAMES = {1: "ones", 2: "twos", 5: "fives", 10: "tens"}
UP = (
    "Count from {first} to {last}.",
    "Please count from {first} to {last}.",
    "Can you count from {first} to {last}?",
    "Count up from {first} to {last}.",
    "Say the numbers from {first} to {last}.",
)
TO = (
    "Count to {last}.",
    "Please count to {last}.",
    "Can you count to {last}?",
    "Count up to {last}.",
    "Start at 1 and count to {last}.",
)
DOWN = (
    "Count down from {first} to {last}.",
    "Please count down from {first} to {last}.",
    "Can you count down from {first} to {last}?",
    "Count back from {first} to {last}.",
)
STEPS = (
    "Count by {step} from {first} to {last}.",
    "Count from {first} to {last} by {step}.",
    "Please count by {step} from {first} to {last}.",
    "Can you count by {step} from {first} to {last}?",
)
AFTER = ("What comes after {n}?", "What number comes after {n}?", "Which number is after {n}?")
BEFORE = ("What comes before {n}?", "What number comes before {n}?", "Which number is before {n}?")


def ask(random: Random) -> Turn:
    if random.random() < 0.18:
        return _neighbour(random)
    if random.random() < 0.15:
        return _to(random)
    length = random.randint(3, 10)
    templates, steps = random.choice(((UP, (1,)), (DOWN, (-1,)), (STEPS, (2, 5, 10))))
    step = random.choice(steps)
    length = min(length, HIGHEST // abs(step) + 1)
    first = random.randint(0, HIGHEST - (length - 1) * abs(step))
    if step in (5, 10):
        first -= first % 5
    if step < 0:
        first = HIGHEST - first
    return _list(random, templates, first, step, length)


def check(facts: tuple, text: str) -> str | None:
    if facts[0] == "neighbour":
        return _check_neighbour(facts, text)
    _, first, step, length = facts
    if not re.fullmatch(rf"{NUMBER}(, {NUMBER})*\.", text):
        return f"not a list of numbers: {text!r}"
    found = [int(number) for number in re.findall(r"\d+", text)]
    for place, number in enumerate(found):
        if number != first + place * step:
            return f"number {place + 1} of the list should not be {number}"
    return None if len(found) == length else f"{len(found)} numbers instead of {length}"


def thought(facts: tuple) -> str:
    if facts[0] == "neighbour":
        return f"I take {facts[1]} and go {'up' if facts[2] > 0 else 'down'} by 1."
    _, first, step, length = facts
    way = "up" if step > 0 else "down"
    return (
        f"I start at {first} and go {way} by {abs(step)}. I stop at {first + (length - 1) * step}."
    )


def _list(random: Random, templates: tuple[str, ...], first: int, step: int, length: int) -> Turn:
    numbers = range(first, first + length * step, step)
    slots = {"first": first, "last": numbers[-1], "step": STEP_NAMES[abs(step)]}
    reply = ", ".join(map(str, numbers)) + "."
    return Turn(worded(random, templates, **slots), reply, ("list", first, step, length))


def _to(random: Random) -> Turn:
    """Counting from 1 to a number, which may be written as a word."""
    last = random.randint(3, 12)
    made = _list(random, TO, 1, 1, last)
    said = NUMBERS[last] if random.random() < 0.5 else str(last)
    return made._replace(message=made.message.replace(str(last), said))


def _neighbour(random: Random) -> Turn:
    n = random.randint(1, HIGHEST)
    way = random.choice((1, -1))
    message = worded(random, AFTER if way > 0 else BEFORE, n=n)
    reply = f"{n + way} comes {'after' if way > 0 else 'before'} {n}."
    return Turn(message, reply, ("neighbour", n, way))


def _check_neighbour(facts: tuple, text: str) -> str | None:
    _, n, way = facts
    parts = re.fullmatch(rf"({NUMBER}) comes (after|before) ({NUMBER})\.", text)
    if parts is None:
        return f"not a sentence about {n}: {text!r}"
    found, side, asked = int(parts[1]), parts[2], int(parts[3])
    if asked != n or (side == "after") != (way > 0):
        return f"not the question: {text!r}"
    return None if found - n == way else f"{found} does not come {side} {n}"
