"""JSON objects about animals, things, people and sums, with the keys that the prompt names."""

import json
from random import Random

from training.world.example import Turn
from training.world.facts import ANIMALS, CITIES, COLOURS, NAMES
from training.world.wording import a, differs, joined, worded

ABOUT = (
    "Write JSON about {what} with {keys}.",
    "Give me a JSON object about {what} with {keys}.",
    "Make a JSON object for {what} with {keys}.",
    "Please write {what} as JSON with {keys}.",
    "JSON for {what} with {keys}.",
)
PERSON = (
    "Write JSON for a person with name {name}, age {age} and city {city}.",
    "Give me a JSON object with name {name}, age {age} and city {city}.",
    "Make a JSON object: name {name}, age {age}, city {city}.",
    "{name} is {age} and lives in {city}. Write that as JSON.",
)
SUM = (
    "Write JSON with a, b and sum for {a} and {b}.",
    "Give me a JSON object with a, b and sum for {a} + {b}.",
    "Add {a} and {b} and write a, b and sum as JSON.",
    "JSON with a, b and sum for {a} + {b}.",
)
ANIMAL_KEYS = ("sound", "legs", "home", "food")
THING_KEYS = ("colour", "letters")
THINGS = {phrase.split()[-1]: phrase for phrase in COLOURS}


def ask(random: Random) -> Turn:
    form = random.choice(("animal", "animal", "thing", "person", "sum"))
    if form == "animal":
        facts = ("animal", random.choice(list(ANIMALS)), _keys(random, ANIMAL_KEYS))
    elif form == "thing":
        facts = ("thing", random.choice(list(THINGS)), _keys(random, THING_KEYS))
    elif form == "person":
        facts = (form, random.choice(list(NAMES)), random.randint(3, 60), random.choice(CITIES))
    else:
        facts = (form, random.randint(0, 10), random.randint(0, 10))
    return Turn(_message(random, facts), json.dumps(_truth(facts)), facts)


def check(facts: tuple, text: str) -> str | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"invalid JSON ({error}): {text!r}"
    truth = _truth(facts)
    if not isinstance(found, dict) or list(found) != list(truth):
        return f"wrong keys, expected {list(truth)}"
    for key, value in truth.items():
        if type(found[key]) is not type(value) or found[key] != value:
            return f"{key} should be {value!r}, not {found[key]!r}"
    return differs(text, json.dumps(found))


def thought(facts: tuple) -> str:
    return f"I need an object with {joined(list(_truth(facts)))}."


def _keys(random: Random, others: tuple[str, ...]) -> tuple[str, ...]:
    """The name and some other keys, in the world's order."""
    count = random.randint(1, min(3, len(others)))
    chosen = set(random.sample(others, count))
    return ("name", *(key for key in others if key in chosen))


def _message(random: Random, facts: tuple) -> str:
    form = facts[0]
    if form == "person":
        return worded(random, PERSON, name=facts[1], age=facts[2], city=facts[3])
    if form == "sum":
        return worded(random, SUM, a=facts[1], b=facts[2])
    what = a(facts[1]) if form == "animal" else THINGS[facts[1]]
    return worded(random, ABOUT, what=what, keys=joined(facts[2]))


def _truth(facts: tuple) -> dict[str, str | int]:
    form, first, *rest = facts
    if form == "person":
        return {"name": first, "age": rest[0], "city": rest[1]}
    if form == "sum":
        return {"a": first, "b": rest[0], "sum": first + rest[0]}
    if form == "animal":
        known = {"name": first, **ANIMALS[first]._asdict()}
    else:
        known = {"name": first, "colour": COLOURS[THINGS[first]], "letters": len(first)}
    return {key: known[key] for key in rest[0]}
