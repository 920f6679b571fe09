"""Colours of things, things of a colour, and mixed colours."""

from random import Random

from training.world.example import Turn
from training.world.facts import COLOURS, MIXES
from training.world.wording import differs, opened, worded

COLOUR = (
    "What colour is {thing}?",
    "Which colour is {thing}?",
    "What color is {thing}?",
    "What is the colour of {thing}?",
    "Tell me the colour of {thing}.",
    "Do you know what colour {thing} is?",
    "What colour does {thing} have?",
    "{thing}, what colour is that?",
)
IS_IT = (
    "Is {thing} {colour}?",
    "Tell me, is {thing} {colour}?",
    "Do you know if {thing} is {colour}?",
)
NAME = (
    "Name something {colour}.",
    "What is {colour}?",
    "Name a thing that is {colour}.",
    "Tell me something that is {colour}.",
    "Which thing is {colour}?",
    "Name one {colour} thing.",
    "Do you know a thing that is {colour}?",
)
MIX = (
    "What do {one} and {two} make?",
    "What colour do you get from {one} and {two}?",
    "Mix {one} and {two}.",
    "Which colour do {one} and {two} make?",
    "What colour is {one} with {two}?",
)
ALL = sorted(set(COLOURS.values()))


def ask(random: Random) -> Turn:
    form = random.choice(("colour", "colour", "colour", "is", "name", "mix"))
    thing, colour = random.choice(list(COLOURS)), random.choice(ALL)
    if form == "colour":
        message = worded(random, COLOUR, thing=thing)
    elif form == "is":
        colour = random.choice((colour, COLOURS[thing]))
        message = worded(random, IS_IT, thing=thing, colour=colour)
    elif form == "name":
        message = worded(random, NAME, colour=colour)
    else:
        thing = random.choice(list(MIXES))
        one, two = random.sample(thing, 2)
        thing = (one, two)
        message = worded(random, MIX, one=one, two=two)
    facts = (form, thing, colour)
    return Turn(message, answer(facts), facts)


def answer(facts: tuple) -> str:
    form, thing, colour = facts
    if form in ("colour", "is"):
        return opened(f"{thing} is {COLOURS[thing]}.")
    if form == "name":
        first = next(thing for thing, its in COLOURS.items() if its == colour)
        return opened(f"{first} is {colour}.")
    one, two = thing
    return f"{opened(one)} and {two} make {MIXES.get((one, two)) or MIXES[two, one]}."


def check(facts: tuple, text: str) -> str | None:
    form, _, colour = facts
    if form == "name":
        named = [opened(f"{thing} is {colour}.") for thing, its in COLOURS.items() if its == colour]
        return differs(text, *named)
    return differs(text, answer(facts))


def thought(facts: tuple) -> str:
    form, thing, colour = facts
    if form == "mix":
        return "I mix the two colours."
    if form == "name":
        return f"I need a thing that is {colour}."
    return f"I know the colour of {thing}."
