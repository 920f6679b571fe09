"""Days of the week and months of the year: neighbours, places and lengths."""

import re
from random import Random

from training.world.example import Turn
from training.world.facts import DAYS, MONTH_DAYS, MONTHS, ORDINALS
from training.world.wording import worded

NEXT = (
    "What {unit} comes {side} {name}?",
    "Which {unit} is {side} {name}?",
    "What comes {side} {name}?",
    "What is the {unit} {side} {name}?",
    "Tell me the {unit} {side} {name}.",
)
LATER = (
    "What {unit} is {n} {unit}s {side} {name}?",
    "Which {unit} comes {n} {unit}s {side} {name}?",
    "What is {n} {unit}s {side} {name}?",
    "Tell me the {unit} {n} {unit}s {side} {name}.",
)
PLACE = (
    "What is the {place} {unit} of the {whole}?",
    "Which {unit} is the {place} of the {whole}?",
    "Tell me the {place} {unit} of the {whole}.",
    "Name the {place} {unit} of the {whole}.",
)
LENGTH = (
    "How many days has {name}?",
    "How many days are in {name}?",
    "How many days does {name} have?",
    "How long is {name}?",
    "Tell me how many days are in {name}.",
)
TODAY = {
    "tomorrow": (
        "Today is {name}. What day is tomorrow?",
        "If today is {name}, what is tomorrow?",
        "It is {name} today. Which day comes tomorrow?",
    ),
    "yesterday": (
        "Today is {name}. What day was yesterday?",
        "If today is {name}, what was yesterday?",
        "It is {name} today. Which day was yesterday?",
    ),
}
CYCLES = {"day": DAYS, "month": MONTHS}
WHOLES = {"day": "week", "month": "year"}


def ask(random: Random) -> Turn:
    form = random.choice((_next, _next, _later, _later, _place, _length, _today))
    return form(random)


def check(facts: tuple, text: str) -> str | None:
    pattern, truth = _expected(*facts)
    found = re.fullmatch(pattern, text)
    if found is None:
        return f"not an answer about {facts[1]}: {text!r}"
    return None if found[1] == truth else f"the answer is {truth}, not {found[1]}"


def thought(facts: tuple) -> str:
    form, name, n = facts
    if form == "length":
        return f"I know the months of the year, and {name} is one of them."
    if form in CYCLES:
        return f"The {form}s start with {CYCLES[form][0]}. I go to the {name} one."
    names = [_moved(name, step if n > 0 else -step) for step in range(abs(n) + 1)]
    return f"I go {'on' if n > 0 else 'back'} from {name}: {', '.join(names)}."


def _moved(name: str, n: int) -> str:
    """The day or month n places on, or back if n is negative."""
    cycle = DAYS if name in DAYS else MONTHS
    return cycle[(cycle.index(name) + n) % len(cycle)]


def _expected(form: str, name: str, n: int) -> tuple[str, str]:
    """The shape of the answer, and what stands in its open place."""
    if form == "length":
        short = {"April": "30", "June": "30", "September": "30", "November": "30", "February": "28"}
        return rf"{name} has (\d+) days\.", short.get(name, "31")
    if form in CYCLES:
        return rf"The {name} {form} of the {WHOLES[form]} is (\w+)\.", CYCLES[form][n]
    if form in TODAY:
        return rf"{form.capitalize()} {'is' if n > 0 else 'was'} (\w+)\.", _moved(name, n)
    side = "after" if n > 0 else "before"
    if abs(n) == 1:
        return rf"{side.capitalize()} {name} comes (\w+)\.", _moved(name, n)
    unit = "days" if name in DAYS else "months"
    return rf"{abs(n)} {unit} {side} {name} is (\w+)\.", _moved(name, n)


def _pick(random: Random) -> tuple[str, str, str, int]:
    unit = random.choice(("day", "month"))
    side, way = random.choice((("after", 1), ("before", -1)))
    return unit, random.choice(CYCLES[unit]), side, way


def _next(random: Random) -> Turn:
    unit, name, side, way = _pick(random)
    message = worded(random, NEXT, unit=unit, name=name, side=side)
    return Turn(
        message, f"{side.capitalize()} {name} comes {_moved(name, way)}.", ("on", name, way)
    )


def _later(random: Random) -> Turn:
    unit, name, side, way = _pick(random)
    n = random.randint(2, 3)
    message = worded(random, LATER, unit=unit, name=name, side=side, n=n)
    reply = f"{n} {unit}s {side} {name} is {_moved(name, n * way)}."
    return Turn(message, reply, ("on", name, n * way))


def _place(random: Random) -> Turn:
    unit = random.choice(("day", "month", "month"))
    n = random.randrange(len(CYCLES[unit]))
    slots = {"unit": unit, "whole": WHOLES[unit], "place": ORDINALS[n]}
    reply = f"The {ORDINALS[n]} {unit} of the {WHOLES[unit]} is {CYCLES[unit][n]}."
    return Turn(worded(random, PLACE, **slots), reply, (unit, ORDINALS[n], n))


def _length(random: Random) -> Turn:
    name = random.choice(MONTHS)
    reply = f"{name} has {MONTH_DAYS[name]} days."
    return Turn(worded(random, LENGTH, name=name), reply, ("length", name, 0))


def _today(random: Random) -> Turn:
    name = random.choice(DAYS)
    form, verb, way = random.choice((("tomorrow", "is", 1), ("yesterday", "was", -1)))
    reply = f"{form.capitalize()} {verb} {_moved(name, way)}."
    return Turn(worded(random, TODAY[form], name=name), reply, (form, name, way))
