"""Letters of the world's words."""

import re
from random import Random

from training.world.example import Turn
from training.world.facts import SPELLED
from training.world.wording import worded

SPELL = (
    "Spell {word}.",
    "Spell the word {word}.",
    "How do you spell {word}?",
    "How is {word} spelled?",
    "Can you spell {word}?",
    "Please spell {word}.",
)
COUNT = (
    "How many letters are in {word}?",
    "How many letters has {word}?",
    "How many letters does {word} have?",
    "How many letters are in the word {word}?",
    "Count the letters in {word}.",
)
END = (
    "What is the {which} letter of {word}?",
    "Which letter is the {which} in {word}?",
    "Tell me the {which} letter of {word}.",
    "What is the {which} letter in the word {word}?",
)
LETTERS = r"(?P<letters>[a-z](?:-[a-z])*)"


def ask(random: Random) -> Turn:
    word = random.choice(SPELLED)
    letters = "-".join(word)
    form = random.choice(("spell", "spell", "count", "first", "last"))
    if form == "spell":
        message = worded(random, SPELL, word=word)
        reply = f"You spell {word} like this: {letters}."
    elif form == "count":
        message = worded(random, COUNT, word=word)
        reply = f"The letters of {word} are {letters}. That makes {len(word)}."
    else:
        message = worded(random, END, word=word, which=form)
        end = word[0 if form == "first" else -1]
        reply = f"The letters of {word} are {letters}. The {form} one is {end}."
    return Turn(message, reply, (form, word))


def check(facts: tuple, text: str) -> str | None:
    form, word = facts
    patterns = {
        "spell": rf"You spell {word} like this: {LETTERS}\.",
        "count": rf"The letters of {word} are {LETTERS}\. That makes (?P<count>\d+)\.",
        "first": rf"The letters of {word} are {LETTERS}\. The first one is (?P<first>[a-z])\.",
        "last": rf"The letters of {word} are {LETTERS}\. The last one is (?P<last>[a-z])\.",
    }
    parts = re.fullmatch(patterns[form], text)
    if parts is None:
        return f"not an answer about {word}: {text!r}"
    truth = {"letters": "-".join(word), "count": str(len(word)), "first": word[0], "last": word[-1]}
    for name, found in parts.groupdict().items():
        if found != truth[name]:
            return f"the {name} of {word}: {truth[name]}, not {found}"
    return None


def thought(facts: tuple) -> str:
    form, word = facts
    if form == "count":
        return f"I say the letters of {word} and count them."
    if form == "spell":
        return f"The word is {word}. I say its letters one by one."
    return f"I say the letters of {word} and take the {form} one."
