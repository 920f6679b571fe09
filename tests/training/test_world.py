"""The toy world: its grammar repeats itself by seed, and its checker believes only what is true."""

import json
import re
from collections import Counter
from contextlib import redirect_stdout
from io import StringIO
from itertools import islice, pairwise
from random import Random

import pytest

from training import world
from training.world import stories
from training.world.conversation import SYSTEM_MESSAGES, normalised
from training.world.plain import PLAIN
from training.world.toolbox import TOOLS

WORDS_AT_MOST = 450
CALL = {"name": "f", "arguments": {"b": True, "a": 1, "city": "Paris"}}
ADD = "<|tool_call>call:add{a:34,b:5}<tool_call|>"
THOUGHT = "<|channel>thought\nI add 7 and 5. 7 + 5 = 12.\n<channel|>"
STORY = next(world.examples(1, "train", ["stories"]))


def replied(kind, facts, **more):
    """An example that is only good for checking against these facts."""
    return world.Example(kind, [], {}, None, more.get("thinking", False), facts)


@pytest.fixture(scope="module")
def samples():
    return {split: list(islice(world.examples(1, split), 3000)) for split in ("train", "held-out")}


@pytest.mark.parametrize("split", ["train", "held-out"])
def test_the_same_seed_tells_the_same(split):
    first, again, other = (list(islice(world.examples(s, split), 50)) for s in (7, 7, 8))
    assert first == again != other


@pytest.mark.parametrize("split", ["train", "held-out"])
def test_every_reply_is_right(samples, split):
    for made in samples[split]:
        assert world.check(made, world.written(made.reply)) is None, made


def test_no_training_conversation_holds_a_held_out_message(samples):
    for made in samples["train"]:
        users = [m["content"] for m in made.messages if m["role"] == "user"]
        assert not any(map(world.is_held_out, users))
    assert all(world.is_held_out(made.last_user_message) for made in samples["held-out"])


def test_careless_typing_does_not_carry_a_question_over_to_the_other_split(samples):
    kept = {
        split: {normalised(made.last_user_message) for made in examples}
        for split, examples in samples.items()
    }
    assert not kept["train"] & kept["held-out"]
    for made in samples["held-out"]:
        asked = made.last_user_message
        bare = asked.rstrip(" .?!=")
        polite = (f"{bare}, please.", f"Please, {bare}?", f"{bare} please!")
        loose = (f" {asked}  ", f"{bare} ...", f"{bare},", f'"{asked}"', bare.replace(",", ""))
        for typed in (asked.lower(), bare, *polite, *loose):
            assert world.is_held_out(typed), (asked, typed)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("What's 3 + 4?", "what is 3+4", True),
        ("what’s 3 + 4?", "What is 3 + 4 =", True),
        ("What is 3 + 4?", "What is 3 - 4?", False),
        ("What is 3 * 4?", "What is 3 4?", False),
        ("Count to 5.", "Please, count to 5!", True),
    ],
)
def test_marks_do_not_matter_but_signs_do(one, other, is_same):
    assert (normalised(one) == normalised(other)) == is_same


def test_a_conversation_is_well_formed(samples):
    for made in samples["train"]:
        roles = [message["role"] for message in made.messages]
        turns = [role for role in roles if role != "system"]
        assert roles.count("system") == (roles[0] == "system")
        assert turns[-1] in ("user", "tool")
        follows = {"user": {"assistant"}, "assistant": {"user", "tool"}, "tool": {"assistant"}}
        assert all(after in follows[before] for before, after in pairwise(turns))
        assert made.thinking == ("reasoning" in made.reply)
        declared = {tool["function"]["name"] for tool in made.tools or []}
        called = {call["function"]["name"] for call in made.reply.get("tool_calls", [])}
        assert called <= declared <= set(TOOLS)
        assert json.loads(json.dumps(made.tools)) == made.tools


def test_both_splits_hold_every_kind(samples):
    for made in samples.values():
        assert {example.kind for example in made} == set(world.KINDS)


def test_held_out_kinds_are_drawn_alike(samples):
    counts = Counter(example.kind for example in samples["held-out"])
    mean = len(samples["held-out"]) / len(world.KINDS)
    assert all(0.7 * mean < counts[kind] < 1.3 * mean for kind in world.KINDS)


@pytest.mark.parametrize("kind", world.KINDS)
def test_a_kind_has_many_held_out_messages(kind):
    made = islice(world.examples(2, "held-out", [kind]), 150)
    assert len({normalised(example.last_user_message) for example in made}) >= 40


@pytest.mark.parametrize("kind", world.KINDS)
def test_a_changed_word_is_found(kind):
    random = Random(kind)
    made = list(islice(world.examples(3, "train", [kind]), 300))
    vocabulary = [word for example in made for word in world.written(example.reply).split()]
    tried = caught = 0
    for example in made:
        reply = world.written(example.reply)
        for text in spoiled(random, reply, vocabulary):
            tried += 1
            caught += world.check(example, text) is not None
    assert caught >= 0.95 * tried


def spoiled(random, reply, vocabulary):
    """The reply with one word replaced, dropped or doubled, one digit changed, cut, or longer."""
    words = re.split(r"(\s+)", reply)
    place = random.randrange(0, len(words), 2)
    other = random.choice([word for word in vocabulary if word != words[place]])
    yield "".join([*words[:place], other, *words[place + 1 :]])
    if len(words) > 1:
        yield "".join([*words[:place], *words[place + 2 :]])
    yield "".join([*words[:place], words[place], " ", *words[place:]])
    digits = [found.start() for found in re.finditer(r"\d", reply)]
    if digits:
        at = random.choice(digits)
        digit = (int(reply[at]) + random.randint(1, 9)) % 10
        yield f"{reply[:at]}{digit}{reply[at + 1 :]}"
    yield reply[: random.randrange(len(reply))]
    yield reply + random.choice([" ", ".", "\n", f" {other}"])


@pytest.mark.parametrize(
    ("kind", "facts", "right", "wrong"),
    [
        ("sums", ("+", 7, 5, None), "7 + 5 = 12.", ["7 + 5 = 13.", "7 + 5 = 12", "5 + 7 = 12."]),
        (
            "sums",
            ("-", 9, 2, ("Mia", "plums")),
            "9 - 2 = 7. Mia has 7 plums left.",
            ["9 - 2 = 7.", "9 - 2 = 7. Mia has 6 plums left.", "9 - 2 = 7. Ben has 7 plums left."],
        ),
        ("counting", ("list", 5, -1, 3), "5, 4, 3.", ["5, 4, 3, 2.", "5, 4.", "5, 4, 03."]),
        (
            "spelling",
            ("spell", "apple"),
            "You spell apple like this: a-p-p-l-e.",
            ["You spell apple like this: a-p-l-e.", "You spell aple like this: a-p-p-l-e."],
        ),
        (
            "spelling",
            ("count", "cow"),
            "The letters of cow are c-o-w. That makes 3.",
            ["The letters of cow are c-o-w. That makes 4.", "The letters of cow are c-o-w."],
        ),
        (
            "spelling",
            ("last", "cow"),
            "The letters of cow are c-o-w. The last one is w.",
            ["The letters of cow are c-o-w. The last one is o.", "The last letter of cow is w."],
        ),
        ("colours", ("is", "snow", "red"), "Snow is white.", ["Snow is red.", "No."]),
        (
            "colours",
            ("name", "", "white"),
            "Milk is white.",
            ["Grass is white.", "The sky is blue."],
        ),
        (
            "animals",
            ("lives", "bear", "field"),
            "The bear lives in the forest.",
            ["The bear lives in the field.", "The bear lives in the forest, so no."],
        ),
        ("dates", ("on", "Sunday", 3), "3 days after Sunday is Wednesday.", ["It is Wednesday."]),
        ("dates", ("length", "May", 0), "May has 31 days.", ["May has 30 days."]),
        (
            "sizes",
            ("is", "bigger", ("cat", "fox")),
            "A cat is smaller than a fox, so no.",
            [
                "A cat is bigger than a fox, so yes.",
                "A cat is smaller than a fox, so yes.",
                "A CAT is smaller than a fox, so no.",
            ],
        ),
        (
            "sizes",
            ("three", "smaller", ("cow", "mouse", "bee")[1:]),
            "A bee is the smallest.",
            ["A mouse is the smallest.", "An bee is the smallest.", "A bee is the biggest."],
        ),
        (
            "json",
            ("animal", "fox", ("name", "legs")),
            '{"name": "fox", "legs": 4}',
            [
                '{"name": "fox", "legs": "4"}',
                '{"name": "fox","legs": 4}',
                '{"name": "fox"',
                "[" * 9999,
            ],
        ),
        ("lists", ("fruits", 2, True), "Here are two fruits:\n- apple\n- banana", ["- apple"]),
        (
            "tools",
            ("call", "add", {"a": 34, "b": 5}, {}),
            ADD,
            [
                ADD[:-1],
                ADD.replace("34", "3"),
                ADD.replace(",", ", "),
                ADD.replace("a:34", "a:034"),
            ],
        ),
        (
            "thinking",
            ("sums", ("+", 7, 5, None)),
            THOUGHT + "7 + 5 = 12.",
            ["7 + 5 = 12.", THOUGHT + "7 + 5 = 11.", THOUGHT.replace("5", "6") + "7 + 5 = 12."],
        ),
    ],
)
def test_the_checker_knows_the_truth(kind, facts, right, wrong):
    made = replied(kind, facts)
    assert world.check(made, right) is None
    assert all(world.check(made, text) for text in wrong)


def test_a_story_may_take_another_plot_but_not_other_names():
    told = {PLAIN["stories"].check(STORY.facts, text) for text in _stories(STORY.facts)}
    assert told == {None}
    strangers = (*STORY.facts[:1], "bee", *STORY.facts[2:])
    assert all(PLAIN["stories"].check(strangers, text) for text in _stories(STORY.facts))


def _stories(facts):
    return {stories.told(Random(seed), facts) for seed in range(20)}


def test_a_call_is_written_as_gemma_writes_it():
    reply = {"role": "assistant", "tool_calls": [{"type": "function", "function": CALL}]}
    call = '<|tool_call>call:f{a:1,b:true,city:<|"|>Paris<|"|>}<tool_call|>'
    assert world.written(reply) == call


def test_every_program_runs():
    for made in islice(world.examples(4, "train", ["python"]), 300):
        code = made.reply["content"].removeprefix("```python\n").removesuffix("```")
        facts, said, scope = dict(made.facts[1:]), StringIO(), {}
        with redirect_stdout(said):
            exec(code, scope)
        expected = {
            "loop": "".join(f"{n}\n" for n in range(facts.get("first", 0), facts.get("stop", 0))),
            "repeat": "hello\n" * facts.get("times", 0),
            "hello": f"Hello, {facts.get('who')}\n",
        }
        if made.facts[0] == "function":
            verb, _, n = facts["name"].partition("_")
            result = {"add": 50 + int(n or 7), "take": 50 - int(n or 7), "times": 50 * int(n or 7)}
            assert scope[facts["name"]](*([50] if n else [50, 7])) == result[verb]
        elif made.facts[0] in expected:
            assert said.getvalue() == expected[made.facts[0]]
        else:
            numbers = [int(number) for number in facts["numbers"].split(", ")]
            right = numbers[facts["index"]] if "index" in facts else sum(numbers)
            assert said.getvalue() == f"{right}\n"


def test_the_world_is_small():
    known = set()
    for kind, plain in PLAIN.items():
        random = Random(kind)
        for _ in range(2500):
            turn = plain.ask(random)
            known |= distinct(turn.reply, plain.thought(turn.facts))
            known |= distinct(turn.message) if kind != "unknown" else set()
    for tool in TOOLS.values():
        known |= distinct(tool.description, tool.said, *tool.asked)
    known |= distinct(*SYSTEM_MESSAGES)
    assert len(known) <= WORDS_AT_MOST


def distinct(*texts):
    """The English words of the texts; spelled letters are none."""
    whole = re.sub(r"\b[a-z](-[a-z])+\b", "", " ".join(texts).lower())
    return set(re.findall(r"[a-z]{2,}|\b[ai]\b", whole))


def test_replies_do_not_drone_on(samples):
    for made in samples["train"]:
        if made.kind in ("counting", "lists", "python", "thinking", "tools"):
            continue
        spoken = world.written(made.reply).split()
        fours = Counter(zip(*(spoken[place:] for place in range(4)), strict=False))
        assert max(fours.values(), default=0) <= 3


def test_plain_text_has_no_chat_in_it():
    texts = {world.plain_text(Random(seed)) for seed in range(300)}
    assert len(texts) > 200
    assert not any("<" in text or "user" in text for text in texts)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split 'test'"):
        next(world.examples(1, "test"))
