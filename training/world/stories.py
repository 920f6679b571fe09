"""Short stories about two who meet: the prompt names them, and maybe the place and the weather."""

import re
from random import Random

from training.world.example import Turn
from training.world.facts import ANIMALS, NAMES, PLACES, WEATHERS
from training.world.plots import CHOICES, ENDING, OPENING, PLOTS
from training.world.wording import a, worded

ABOUT = (
    "Tell me a story about {who}.",
    "Tell me a short story about {who}.",
    "Tell a story about {who}.",
    "Write a story about {who}.",
    "Write a short story about {who}.",
    "Can you tell me a story about {who}?",
    "I want a story about {who}.",
    "A story about {who}, please.",
)
ANY = (
    "Tell me a story.",
    "Tell me a short story.",
    "Write a story.",
    "Can you tell me a story?",
    "I want a story.",
)
DEFAULT = ("fox", "owl")
FAIR = "sunny"
SLOT = re.compile(r"\{(\w+)\}")


def ask(random: Random) -> Turn:
    if random.random() < 0.06:
        facts = (*DEFAULT, ANIMALS[DEFAULT[0]].home, FAIR)
        return Turn(worded(random, ANY), told(random, facts), facts)
    first, second, who = _characters(random)
    home, weather = ANIMALS[first if first in ANIMALS else second].home, FAIR
    if random.random() < 0.35:
        home = random.choice(list(PLACES))
        who += f" {PLACES[home]}"
    if random.random() < 0.35:
        weather = random.choice(WEATHERS)
        who += f" on a {weather} day"
    facts = (first, second, home, weather)
    return Turn(worded(random, ABOUT, who=who), told(random, facts), facts)


def told(random: Random, facts: tuple) -> str:
    """One of the stories that these facts allow."""
    plot = random.choice(list(PLOTS))
    slots = {name: random.choice(words) for name, words in CHOICES.items()}
    return " ".join(_plan(plot)).format(**slots, **_fixed(facts))


def check(facts: tuple, text: str) -> str | None:
    wrong = "no known story begins like this"
    longest = 0
    for plot in PLOTS:
        pattern, seen = "", set()
        for count, sentence in enumerate(_plan(plot)):
            pattern += (" " if count else "") + _pattern(sentence, _fixed(facts), seen)
            if not re.match(pattern, text):
                if count > longest:
                    longest, wrong = count, f"sentence {count + 1} is not of the story {plot!r}"
                break
        else:
            return None if re.fullmatch(pattern, text) else "the story goes on after its end"
    return wrong


def thought(facts: tuple) -> str:
    one, two = (name if name in NAMES else f"the {name}" for name in facts[:2])
    return f"I need a story about {one} and {two}."


def _plan(plot: str) -> tuple[str, ...]:
    return (OPENING, *PLOTS[plot], ENDING)


def _characters(random: Random) -> tuple[str, str, str]:
    """The two, and what the prompt says of them. A lone one meets the owl, an owl the fox."""
    first, second = random.sample(list(ANIMALS), 2)
    roll = random.random()
    if roll < 0.25:
        first = random.choice(list(NAMES))
    elif roll < 0.4:
        second = random.choice(list(NAMES))
    if random.random() < 0.15:
        second = DEFAULT[0] if first == DEFAULT[1] else DEFAULT[1]
        return first, second, _named(first)
    return first, second, f"{_named(first)} and {_named(second)}"


def _named(character: str) -> str:
    return character if character in NAMES else a(character)


def _fixed(facts: tuple) -> dict[str, str]:
    first, second, home, weather = facts
    one, two = (name if name in NAMES else f"the {name}" for name in (first, second))
    return {"one": one, "two": two, "place": PLACES[home], "weather": weather}


def _pattern(sentence: str, fixed: dict[str, str], seen: set[str]) -> str:
    """The sentence as a regular expression. A slot is free at first and then stays the same."""
    parts = SLOT.split(sentence)
    for place in range(0, len(parts), 2):
        parts[place] = re.escape(parts[place])
    for place in range(1, len(parts), 2):
        name = parts[place]
        if name in fixed:
            parts[place] = re.escape(fixed[name])
        elif name in seen:
            parts[place] = f"(?P={name})"
        else:
            parts[place] = f"(?P<{name}>{'|'.join(CHOICES[name])})"
            seen.add(name)
    return "".join(parts)
