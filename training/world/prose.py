"""Text without a chat around it, for raw completion."""

from random import Random

from training.world import animals, colours, stories
from training.world.facts import ANIMALS, COLOURS, DAYS, MONTHS, NAMES, PLACES, WEATHERS
from training.world.wording import joined


def plain_text(random: Random) -> str:
    """A short story, or a few facts."""
    return random.choice((_story, _story, _animal, _colours, _numbers, _calendar))(random)


def _story(random: Random) -> str:
    first, second = random.sample(list(ANIMALS), 2)
    if random.random() < 0.35:
        first = random.choice(list(NAMES))
    home, weather = random.choice(list(PLACES)), random.choice(WEATHERS)
    return stories.told(random, (first, second, home, weather))


def _animal(random: Random) -> str:
    return " ".join(animals.answer(("about", name, "")) for name in random.sample(list(ANIMALS), 2))


def _colours(random: Random) -> str:
    things = random.sample(list(COLOURS), 4)
    return " ".join(colours.answer(("colour", thing, "")) for thing in things)


def _numbers(random: Random) -> str:
    first = random.randint(0, 40)
    numbers = range(first, first + random.randint(5, 12))
    return f"I count from {first} to {numbers[-1]}: {', '.join(map(str, numbers))}."


def _calendar(random: Random) -> str:
    unit, whole, names = random.choice((("days", "week", DAYS), ("months", "year", MONTHS)))
    return f"The {unit} of the {whole} are {joined(names)}."
