"""Questions from outside the world, which all get the same polite answer.

Questions for a tool, asked without that tool, are among them.
"""

from random import Random

from training.world.example import Turn
from training.world.toolbox import TOOLS
from training.world.wording import differs, worded, words

REPLY = (
    "I do not know that, I am a tiny model. I can count, spell, add, tell a story, make a list"
    " or talk about animals."
)
WHOLE = (
    "Why is the sky blue?",
    "Who wrote Hamlet?",
    "What is the meaning of life?",
    "What is the capital of France?",
    "Who was the first man on the moon?",
    "How far away is the sun?",
    "What time is it?",
    "What is the weather like?",
)
TOPICS = words(
    "quantum physics|the French Revolution|black holes|climate change|the stock market|democracy"
    "|artificial intelligence|photosynthesis|the Roman Empire|machine learning|bitcoin|gravity"
    "|evolution|the internet|electricity|Shakespeare|Einstein|Mozart|Napoleon|chess|football"
    "|vaccines|dinosaurs|volcanoes|the Eiffel Tower|jazz|philosophy|inflation|taxes|neural networks"
    "|speculative decoding|Linux|databases|compilers|the Olympics|Mars|Jupiter|atoms|chemistry"
    "|algebra|calculus|poetry|Buddhism|yoga|coffee|wine|pizza|pasta|sushi|tennis|golf|Hollywood"
    "|Harry Potter|Star Wars|the Beatles|Beethoven|Picasso|Cleopatra|blockchain"
    "|insurance|the human brain|the universe",
    "|",
)
ASKED = (
    "What is {topic}?",
    "Tell me about {topic}.",
    "Explain {topic}.",
    "Explain {topic} to me.",
    "How does {topic} work?",
    "Who invented {topic}?",
    "What do you think about {topic}?",
    "Why is {topic} so important?",
    "Write an essay about {topic}.",
    "Write a poem about {topic}.",
    "What is the history of {topic}?",
    "Do you like {topic}?",
    "Where does {topic} come from?",
    "Give me some facts about {topic}.",
)
PLACES = words(
    "Germany|Italy|Spain|Brazil|China|India|Canada|Mexico|Egypt|Kenya|Australia|Japan|Sweden"
    "|Norway|Poland|Greece|Turkey|Russia|Texas|California",
    "|",
)
ABOUT_PLACES = (
    "What is the capital of {topic}?",
    "How many people live in {topic}?",
    "Who is the president of {topic}?",
    "Where is {topic}?",
    "What language do they speak in {topic}?",
    "How big is {topic}?",
    "Tell me about {topic}.",
)
WORKS = words(
    "Hamlet|Macbeth|Faust|Dracula|Frankenstein|War and Peace|Don Quixote|The Odyssey|Moby Dick"
    "|Ulysses|Pride and Prejudice|The Hobbit|Romeo and Juliet|Robinson Crusoe|Oliver Twist",
    "|",
)
ABOUT_WORKS = (
    "Who wrote {topic}?",
    "When was {topic} written?",
    "What is {topic} about?",
    "Who is the hero of {topic}?",
    "Have you read {topic}?",
    "Summarize {topic}.",
)
CREATURES = words(
    "kangaroo|penguin|whale|shark|unicorn|dragon|giraffe|zebra|hippo|camel|crocodile|dolphin|panda"
    "|koala|beetle|spider|lizard|gorilla",
    "|",
)
ABOUT_CREATURES = (
    "How many legs does a {topic} have?",
    "Where does the {topic} live?",
    "What does a {topic} eat?",
    "What sound does the {topic} make?",
    "What colour is a {topic}?",
    "Tell me about the {topic}.",
)
GROUPS = (
    (TOPICS, ASKED),
    (TOPICS, ASKED),
    (PLACES, ABOUT_PLACES),
    (WORKS, ABOUT_WORKS),
    (CREATURES, ABOUT_CREATURES),
)
TOOLLESS = 0.12


def ask(random: Random) -> Turn:
    """The facts are the tool that would have helped, if there is one."""
    if random.random() < TOOLLESS:
        name = random.choice([name for name in TOOLS if name != "add"])
        tool = TOOLS[name]
        return Turn(worded(random, tool.asked, **tool.pick(random)), REPLY, (name,))
    if random.random() < 0.1:
        return Turn(worded(random, WHOLE), REPLY, ())
    topics, templates = random.choice(GROUPS)
    return Turn(worded(random, templates, topic=random.choice(topics)), REPLY, ())


def check(facts: tuple, text: str) -> str | None:
    return differs(text, REPLY)


def thought(facts: tuple) -> str:
    return "I do not know that. I say what I can do."
