"""F5: tool calls with all that JSON has, and with mistakes; what is cut off is no call."""

import json
import random
import string

import pytest

from mtp_mlx.text.calls import QUOTE, parse_call
from tests.text.replies import ids_of, replay, tokenizer

WORDS = (
    *("", "a", "{", "}", "[1,2]", 'say "x"', ":", ",", "call:f{", "Köln 👩\u200d👧", "a\nb\t"),
    *("\\", "<|tool_call>", "<tool_call|>", "true", "1", " spaced ", "\u2028", "'"),
)
KEYS = ("a", "city", "max_degrees", "x-y", "naïve", "a b", "0", "true")
BARE = ("hello", "12:30", "a b", "https://a.example/b?c=d", "nul", "1.2.3", "-", "01", "Köln", "+1")
NUMBERS = (0, 7, -3, 1.5, -2.5e-7, 10**30, 1e300)
GRAMMAR_CASES, MUTANTS = 10_000, 3_000


def value(draw: random.Random, depth: int) -> object:
    """Any JSON value."""
    kind = draw.random()
    if depth and kind < 0.2:
        return {key: value(draw, depth - 1) for key in draw.sample(KEYS, draw.randint(0, 3))}
    if depth and kind < 0.4:
        return [value(draw, depth - 1) for _ in range(draw.randint(0, 3))]
    if kind < 0.7:
        return "".join(draw.choices(WORDS, k=draw.randint(0, 3)))
    return draw.choice((*NUMBERS, True, False, None))


def written(value: object, draw: random.Random) -> str:
    """A value in Gemma's form, with spaces here and there; strings between QUOTEs."""
    if isinstance(value, str):
        return QUOTE + value + QUOTE
    if isinstance(value, dict):
        pairs = [f"{space(draw)}{key}:{written(each, draw)}" for key, each in value.items()]
        return "{" + ",".join(pairs) + space(draw) + "}"
    if isinstance(value, list):
        return "[" + ",".join(space(draw) + written(each, draw) for each in value) + "]"
    return json.dumps(value) + space(draw)


def space(draw: random.Random) -> str:
    return draw.choice(("", "", "", " ", "\n  "))


def arguments(draw: random.Random) -> dict:
    return {key: value(draw, 3) for key in draw.sample(KEYS, draw.randint(0, 4))}


def test_ten_thousand_calls_of_the_grammar_are_read_as_they_are_meant():
    draw = random.Random(1)
    for _ in range(GRAMMAR_CASES):
        meant = arguments(draw)
        found = parse_call(f"call:do.it{written(meant, draw)}")
        assert found is not None and found[0] == "do.it"
        assert json.loads(found[1]) == meant


def test_calls_in_a_stream_are_read_as_they_are_meant():
    draw = random.Random(2)
    for _ in range(100):
        meant = [arguments(draw) for _ in range(draw.randint(1, 2))]
        spelled = [f"call:f{written(each, draw)}" for each in meant]
        # The text between quotes may spell markers: only what stands outside is a control token.
        ids = [id_ for text in spelled for id_ in ids_of_call(text)]
        found = replay(ids, sorted(draw.sample(range(1, len(ids)), 2)), tools=["f"])
        assert [json.loads(text) for _, text in found.calls] == meant
        assert found.reply.text == "" and found.reply.warning is None
        assert found.reply.finish_reason == "tool_calls"
        assert found.reply.tool_text == "".join(
            f"<|tool_call>{text}<tool_call|>".replace(QUOTE, '<|"|>') for text in spelled
        )
        assert len({call.id for call in found.reply.tool_calls}) == len(meant)


def ids_of_call(text: str) -> list[int]:
    """A call whose QUOTEs are the control token, and all else plain text."""
    plain, control = tokenizer().encode, tokenizer().control_id
    ids = [id_ for part in text.split(QUOTE) for id_ in (*plain(part), control('<|"|>'))]
    return [control("<|tool_call>"), *ids[:-1], control("<tool_call|>")]


@pytest.mark.parametrize("word", BARE)
def test_a_bare_word_is_a_string(word):
    found = parse_call(f"call:f{{a:{word},b:[{word}, 2],c:{{d: {word} }}}}")
    assert found is not None
    assert json.loads(found[1]) == {"a": word, "b": [word, 2], "c": {"d": word}}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ('call:f{"a": "x, y", "b": {"c": [1]}}', {"a": "x, y", "b": {"c": [1]}}),
        ('call:f({"a": "x)"})', {"a": "x)"}),
        ('call:f( {"a": 1} )', {"a": 1}),
        ('call:f{a:"x, y",b:1}', {"a": "x, y", "b": 1}),
        (f"call:f{{{QUOTE}a b{QUOTE}:1}}", {"a b": 1}),
        (" call:f {} ", {}),
        ("call:f{a:{},b:[]}", {"a": {}, "b": []}),
    ],
)
def test_json_and_mixed_forms_are_read_too(text, meant):
    found = parse_call(text)
    assert found is not None and found[0] == "f"
    assert json.loads(found[1]) == meant


@pytest.mark.parametrize(
    "text",
    [
        *("", "call:", "call:f", "f{}", "call:{}", "call:f{", "call:f}", "call:f{}}", "call:f{a}"),
        *("call:f{a:}", "call:f{:1}", "call:f{a:1,}", "call:f{,a:1}", "call:f{a:1 b:[2] c}x"),
        *("call:f{a:[1}", "call:f{a:{b:1]}", "call:f[1]", "call:f(1)", "call:f([1])", "call:f({)}"),
        *("call:f{a:1}}", "call:f g{}", "call:f{a:[,]}", 'call:f({"a": NaN})', "call:" + "f" * 129),
        *(f"call:f{{a:{QUOTE}x}}", f"call:f{{a:x{QUOTE}y{QUOTE}}}", f'call:f{{"a": "{QUOTE}"}}'),
        f"call:a{QUOTE}b{{}}",
        *("call:f{a:" + "[" * 5000 + "]" * 5000 + "}", "call:f{a:" + "9" * 5000 + "}"),
        'call:f({"a": ' + "[" * 99_999 + "]" * 99_999 + "})",
    ],
)
def test_what_is_no_call_is_none(text):
    assert parse_call(text) is None


class Slow:
    """The same grammar by recursive descent, on Python values. Raises ValueError, IndexError."""

    def __init__(self, text: str) -> None:
        self.rest = text

    def value(self) -> object:
        self.rest = self.rest.lstrip()
        if self.rest[0] == "{":
            return self.members("}", {})
        if self.rest[0] == "[":
            return self.members("]", [])
        quoted = self.quoted()
        return self.scalar(self.word(",{}[]")) if quoted is None else quoted

    def members(self, closer: str, found):
        self.rest = self.rest[1:].lstrip()
        while self.rest[0] != closer:
            if isinstance(found, dict):
                key = self.quoted()
                key = self.word(":,{}[]") if key is None else key
                self.expect(":")
                found[key] = self.value()
            else:
                found.append(self.value())
            self.rest = self.rest.lstrip()
            if self.rest[0] != closer:
                self.expect(",")
                self.rest = self.rest.lstrip()
                if self.rest[0] == closer:
                    raise ValueError("a comma before the end")
        self.rest = self.rest[1:]
        return found

    def expect(self, character: str) -> None:
        self.rest = self.rest.lstrip()
        if self.rest[0] != character:
            raise ValueError(character)
        self.rest = self.rest[1:]

    def quoted(self) -> str | None:
        if self.rest[0] == QUOTE and QUOTE in self.rest[1:]:
            text, self.rest = self.rest[1:].split(QUOTE, 1)
            return text
        return None

    def word(self, ends: str) -> str:
        at = min(self.rest.find(end) for end in ends + QUOTE if end in self.rest)
        text, self.rest = self.rest[:at].strip(), self.rest[at:]
        if not text:
            raise ValueError("no word")
        return text

    def scalar(self, word: str) -> object:
        if word in ("NaN", "Infinity", "-Infinity"):
            return word
        try:
            return json.loads(word)
        except ValueError:
            return word


def slowly(text: str) -> dict | None:
    slow = Slow(text)
    try:
        found = slow.value()
    except (ValueError, IndexError):
        return None
    return found if isinstance(found, dict) and not slow.rest.strip() else None


def test_mutilated_calls_are_read_as_a_slow_parser_reads_them():
    draw, read = random.Random(3), 0
    marks = "{}[]:," + QUOTE + " 1a"
    for _ in range(MUTANTS):
        text = written(arguments(draw), draw).replace('"', "'").replace("\\", "/")
        for _ in range(draw.randint(0, 2)):
            at = draw.randrange(len(text))
            change = draw.choice(("", text[at] + draw.choice(marks), draw.choice(marks)))
            text = text[:at] + change + text[at + 1 :]
        found = parse_call(f"call:f{text}")
        meant = slowly(text) if text.strip().startswith("{") else None
        assert (None if found is None else json.loads(found[1])) == meant, text
        read += found is not None
    assert MUTANTS // 4 < read < MUTANTS


def test_a_call_that_is_cut_off_is_no_call_and_its_text_is_kept():
    text = '<|tool_call>call:f{a:{b:[1,<|"|>}<|"|>]}}<tool_call|>'
    ids = ids_of(text)
    for end in range(1, len(ids)):
        found = replay(ids[:end], reason="length", tools=["f"]).reply
        assert (found.finish_reason, found.tool_calls, found.text) == ("length", (), "")
        assert found.tool_text == tokenizer().decode(ids[:end], skip_special=False)
        assert found.warning is not None and "cut off" in found.warning
    assert replay(ids, reason="length", tools=["f"]).reply.finish_reason == "length"
    assert replay(ids, reason="stop", tools=["f"]).reply.finish_reason == "tool_calls"


def test_a_call_that_cannot_be_read_is_no_call():
    found = replay(ids_of("<|tool_call>call:f{a:}<tool_call|><|tool_response>"), tools=["f"]).reply
    assert (found.finish_reason, found.tool_calls, found.text) == ("stop", (), "")
    assert found.tool_text == "<|tool_call>call:f{a:}<tool_call|>"
    assert found.warning == (
        "a tool call is cut off or cannot be read, so there is none: call:f{a:}"
    )
    both = "<|tool_call>call:f{<|tool_call>call:f{a:1}<tool_call|>"
    found = replay(ids_of(both), tools=["f"])
    assert found.calls == [("f", '{"a":1}')]
    assert found.reply.finish_reason == "tool_calls" and "call:f{" in found.reply.warning


@pytest.mark.parametrize("end", [*string.whitespace[:3], "", " and so on", "<turn|>"])
def test_the_drifted_form_is_a_call_where_there_are_tools(end):
    text = '<|tool_call|>call:get_time({"city": "a)}\\"", "n": [1, {}]})'
    ids = ids_of(f"Well: {text}{end}")
    found = replay(ids, tools=["get_time"])
    assert found.calls == [("get_time", '{"city": "a)}\\"", "n": [1, {}]}')]
    assert found.reply.text == "Well: " + end.replace("<turn|>", "")
    assert (found.reply.tool_text, found.reply.finish_reason) == (text, "tool_calls")
    without = replay(ids)
    assert without.calls == [] and without.reply.text == tokenizer().decode(ids)


@pytest.mark.parametrize(
    "text",
    [
        *("<|tool_call|>", "<|tool_call|> call:f({})", "<|tool_call|>call:({})", "a <|tool_call"),
        *("<|tool_call|>call:f({}", "<|tool_call|>call:f({]", "<|tool_call|>call:f({}}"),
        *("<|tool_call|>call:f({x})", "<|tool_call|>call:f[1]", "<|tool_call|>call:f (1)"),
        '<|tool_call|>call:f({"a": "})',
        "<|tool_call|>call:" + "f" * 200 + "({})",
    ],
)
def test_what_only_looks_like_the_drifted_form_is_said(text):
    found = replay(tokenizer().encode(text), tools=["f"])
    assert (found.calls, found.reply.text, found.reply.tool_text) == ([], text, "")
    again = replay(tokenizer().encode(text + '<|tool_call|>call:f({"b": 2})'), tools=["f"])
    assert again.reply.text + again.reply.tool_text == text + '<|tool_call|>call:f({"b": 2})'
