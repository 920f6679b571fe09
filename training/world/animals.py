"""What animals say, eat and have, and where they live."""

from random import Random

from training.world.example import Turn
from training.world.facts import ANIMALS, PLACES
from training.world.wording import a, differs, opened, worded

QUESTIONS = {
    "sound": (
        "What does the {animal} say?",
        "What sound does the {animal} make?",
        "What does {a} say?",
        "Which sound does {a} make?",
        "What is the sound of {a}?",
    ),
    "legs": (
        "How many legs does {a} have?",
        "How many legs has {a}?",
        "How many legs does the {animal} have?",
        "Tell me how many legs {a} has.",
    ),
    "home": (
        "Where does the {animal} live?",
        "Where does {a} live?",
        "What is the home of the {animal}?",
        "Tell me where {a} lives.",
    ),
    "food": (
        "What does the {animal} eat?",
        "What does {a} eat?",
        "What is the food of {a}?",
        "Tell me what {a} eats.",
    ),
    "about": (
        "Tell me about the {animal}.",
        "What do you know about the {animal}?",
        "Tell me something about {a}.",
        "What is {a}?",
        "Can you tell me about the {animal}?",
        "Talk about the {animal}.",
    ),
    "lives": (
        "Does the {animal} live {place}?",
        "Does {a} live {place}?",
        "Tell me, does the {animal} live {place}?",
    ),
    "who": (
        "Which animal says {sound}?",
        "Who says {sound}?",
        "What animal says {sound}?",
        "Which animal makes the sound {sound}?",
    ),
}
FORMS = tuple(QUESTIONS)


def ask(random: Random) -> Turn:
    animal = random.choice(list(ANIMALS))
    form = random.choice((*FORMS, "about", "about"))
    home = random.choice((ANIMALS[animal].home, random.choice(list(PLACES))))
    slots = {"animal": animal, "a": a(animal), "place": PLACES[home]}
    message = worded(random, QUESTIONS[form], sound=ANIMALS[animal].sound, **slots)
    facts = (form, animal, home)
    return Turn(message, answer(facts), facts)


def answer(facts: tuple) -> str:
    form, animal, _ = facts
    its = ANIMALS[animal]
    place = PLACES[its.home]
    legs = f"{its.legs} legs" if its.legs else "no legs"
    answers = {
        "sound": f"The {animal} says {its.sound}.",
        "legs": opened(f"{a(animal)} has {legs}."),
        "home": f"The {animal} lives {place}.",
        "food": f"The {animal} eats {its.food}.",
        "about": (
            f"The {animal} is an animal with {legs}. It lives {place}, eats {its.food} and says"
            f" {its.sound}."
        ),
        "lives": f"The {animal} lives {place}.",
        "who": f"The {animal} says {its.sound}.",
    }
    return answers[form]


def check(facts: tuple, text: str) -> str | None:
    return differs(text, answer(facts))


def thought(facts: tuple) -> str:
    form, animal, _ = facts
    if form == "who":
        return "I know which animal says that."
    return f"I know the {animal}."
