"""Greetings, thanks, goodbyes, and what this model is."""

from random import Random

from training.world.example import Turn
from training.world.facts import NAMES
from training.world.wording import differs, worded

REPLIES = {
    "hello": "Hello! How can I help you?",
    "named": "Hello, {name}! How can I help you?",
    "thanks": "You are welcome!",
    "who": (
        "I am a tiny model that comes with mtp-mlx. I know a small world of animals, numbers,"
        " words and colours."
    ),
    "can": (
        "I can count, spell, add, tell a story, make a list, write JSON and Python, and talk about"
        " animals, colours and days."
    ),
    "bye": "Goodbye! Have a good day.",
    "how": "I am fine, thank you. How can I help you?",
}
GREETINGS = (
    "hello",
    "hi",
    "hey",
    "good day",
    "good morning",
    "good evening",
    "hello there",
    "hi there",
    "hey there",
)
MESSAGES = {
    "hello": ("{hi}!", "{hi}.", "{hi}", "{hi}, tiny model!", "{hi}, model.", "{hi}, my friend!"),
    "named": (
        "{hi}, I am {name}.",
        "{hi}! My name is {name}.",
        "{hi}, my name is {name}!",
        "{hi} from {name}!",
    ),
    "thanks": (
        "Thank you{thing}!",
        "Thanks{thing}.",
        "Thank you very much{thing}!",
        "Thanks a lot{thing}!",
        "Good, thank you{thing}.",
    ),
    "who": (
        "{hi}Who are you?",
        "{hi}What are you?",
        "{hi}What is your name?",
        "{hi}Which model are you?",
        "{hi}Tell me about you.",
        "{hi}Tell me your name.",
        "{hi}What model is this?",
        "{hi}Are you a model?",
    ),
    "can": (
        "{hi}What can you do?",
        "{hi}What do you know?",
        "{hi}How can you help me?",
        "{hi}Can you help me?",
        "{hi}Tell me what you can do.",
        "{hi}Tell me what you know.",
        "{hi}Help!",
    ),
    "bye": (
        "{thanks}{bye}!",
        "{thanks}{bye}.",
        "{thanks}{bye}, tiny model!",
        "{thanks}{bye}, model.",
    ),
    "how": (
        "{hi}How are you?",
        "{hi}How are you today?",
        "{hi}How do you do?",
    ),
}
BYES = ("bye", "goodbye", "good night", "goodbye for now", "bye bye")
THINGS = (
    "",
    "",
    *(
        f" for {what}"
        for what in ("the story", "the list", "the help", "the answer", "that", "the words")
    ),
)
CLOSINGS = (
    "",
    "",
    "Thank you, ",
    "Thanks and ",
    "That is all, ",
    "It is night, ",
    "Good, ",
    "Thank you very much, ",
    "Thanks for the help, ",
)


def ask(random: Random) -> Turn:
    form = random.choice(list(REPLIES))
    name, hi = random.choice(list(NAMES)), random.choice(GREETINGS)
    slots = {"name": name, "thing": random.choice(THINGS), "bye": random.choice(BYES)}
    slots["thanks"] = random.choice(CLOSINGS)
    if form in ("hello", "named"):
        slots["hi"] = hi
    else:
        slots["hi"] = random.choice(("", "", f"{hi.capitalize()}! ", f"{hi.capitalize()}. "))
    facts = (form, name)
    return Turn(worded(random, MESSAGES[form], **slots), answer(facts), facts)


def answer(facts: tuple) -> str:
    form, name = facts
    return REPLIES[form].format(name=name)


def check(facts: tuple, text: str) -> str | None:
    return differs(text, answer(facts))


def thought(facts: tuple) -> str:
    return "I say a few good words."
