"""A19: a chat template that tries to escape, to run for ever, or to fill the memory."""

import resource
import sys
import time

import pytest

import mtp_mlx
from mtp_mlx.errors import CheckpointError, MtpError, RequestError
from mtp_mlx.text.template import ChatTemplate
from tests.bad_input.files import copy_pair

LIMIT_S = 20.0  # of a busy machine: 2 s to run, and a new process before it
GROWTH_BYTES = 64 << 20  # of this process, while a template asks for gigabytes
USER = [{"role": "user", "content": "hello"}]
GOOD = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"
DEEP = "{% macro deep(n) %}{{ deep(n + 1) }}{% endmacro %}{{ deep(0) }}"
SLOW = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
MANY = "{% for i in range(3000) %}{% for j in range(3000) %}{{ messages[0].content }}{% endfor %}"
HOARD = (
    "{% set kept = namespace(all=[]) %}{% for i in range(9999) %}"
    "{% set kept.all = kept.all + [messages[0].content * 1000000 ~ i] %}{% endfor %}"
)
TIME, MEMORY, OUTPUT = "ran longer than 2 s", "more than 256 MiB of memory", "4,194,304 bytes"
UNSAFE, DEPTH, BLOCKS = "is unsafe", "recursion depth", "nested blocks"
HOSTILE = {
    "attributes": ("{{ ''.__class__.__mro__ }}", UNSAFE),
    "subclasses": ("{{ ''.__class__.__base__.__subclasses__() }}", UNSAFE),
    "globals": ("{{ raise_exception.__globals__['os'] }}", UNSAFE),
    "code": ("{{ messages.append.__self__.__class__ }}", UNSAFE),
    "format_escape": ("{{ '{0.__class__.__mro__}'.format(messages) }}", UNSAFE),
    "mutation": ("{% set _ = messages.append(1) %}", "unsafe"),
    "no_import": ("{% import 'os' as os %}", "refuses"),
    "long_range": ("{% for i in range(100001) %}{% endfor %}", "Range too big"),
    "endless_loop": (SLOW, TIME),
    "three_loops": ("{% for i in range(3000) %}" * 3 + "{% endfor %}" * 3, TIME),
    "loops_that_write": (MANY + "{% endfor %}", f"{OUTPUT}|{TIME}"),  # whichever comes first
    "huge_power": ("{{ 7 ** (messages | length * 10 ** 9) }}", TIME),
    "huge_string": ("{{ 'a' * 300000000 }}", MEMORY),
    "huge_by_message": ("{{ messages[0].content * 300000000 }}", MEMORY),
    "huge_list": ("{{ [0] * 10 ** 9 }}", MEMORY),
    "huge_center": ("{{ 'a'.center(10 ** 9) }}", MEMORY),
    "huge_percent": ("{{ '%1000000000d' % 1 }}", MEMORY),
    "huge_format": ("{{ '{:>1000000000}'.format(1) }}", MEMORY),
    "huge_indent": ("{{ messages[0].content | indent(10 ** 9, true) }}", MEMORY),
    "hoard": (HOARD, MEMORY),
    "huge_refusal": ("{{ raise_exception('ab ' * 80000000) }}", MEMORY),
    "escapes": (r"{{ raise_exception('\x1b]0;owned\x07\x1b[2J\x9bhi') }}", "␛]0;owned␇␛.2J.*hi"),
    "deep_macro": (DEEP, DEPTH),
    "deep_parentheses": ("{{ " + "(" * 50_000, DEPTH),
    "deep_negation": ("{{ " + "not " * 50_000 + "a }}", DEPTH),
    "deep_filters": ("{{ a" + " | trim" * 20_000 + " }}", DEPTH),
    "many_blocks": ("{% for i in a %}" * 30 + "{% endfor %}" * 30, BLOCKS),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_ends_as_a_typed_error_and_the_next_renders(name):
    source, said = HOSTILE[name]
    begin = time.monotonic()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((CheckpointError, RequestError), match=said) as caught:
        ChatTemplate(source).render(USER)
    assert time.monotonic() - begin < LIMIT_S
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    assert grown * (1 if sys.platform == "darwin" else 1024) < GROWTH_BYTES
    check_line(caught.value)
    assert ChatTemplate(GOOD).render(USER) == "user: hello"


def check_line(error: MtpError) -> None:
    """One short line that says whose fault it is; 400 for a server."""
    assert error.status == 400
    assert str(error).isprintable() and len(str(error)) < 400
    assert "chat template" in str(error) or "chat_template" in str(error)
    if isinstance(error, RequestError):
        assert error.param == "messages"


def test_nine_million_rounds_are_within_the_limit_or_end_at_it():
    source = "{% for i in range(3000) %}{% for j in range(3000) %}{% endfor %}{% endfor %}done"
    begin = time.monotonic()
    try:
        assert ChatTemplate(source).render(USER) == "done"
    except RequestError as error:
        assert "ran longer than 2 s" in str(error)
    assert time.monotonic() - begin < LIMIT_S


def test_a_chat_beyond_all_measure_is_refused_before_it_is_sent():
    with pytest.raises(RequestError, match=r"was given 33,554,\d+ bytes, more than 33,554,432"):
        ChatTemplate(GOOD).render([{"role": "user", "content": "a" * (32 << 20)}])
    with pytest.raises(RequestError, match=r"no JSON: .*set"):
        ChatTemplate(GOOD).render([{"role": "user", "content": {1, 2}}])
    assert ChatTemplate(GOOD).render(USER) == "user: hello"


def test_a_pair_with_a_hostile_template_still_answers_plain_prompts(tmp_path):
    target, drafter = copy_pair(tmp_path, "31b")
    (target / "chat_template.jinja").write_text(SLOW)
    with mtp_mlx.load(target, draft_model=drafter) as llm:
        for call in (llm.chat, llm.stream, lambda chat: llm.batch(["a", chat])):
            with pytest.raises(RequestError, match="ran longer than 2 s") as caught:
                call(USER)
            assert (caught.value.status, caught.value.param) == (400, "messages")
        assert llm.generate("hello", max_tokens=2, seed=1).token_ids
        assert llm.stats().is_idle


def test_a_template_that_explodes_when_compiled_is_refused_at_load(tmp_path):
    target, drafter = copy_pair(tmp_path, "31b")
    (target / "chat_template.jinja").write_text("{{ " + "(" * 50_000)
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja: is not a template: .*depth"):
        mtp_mlx.load(target, draft_model=drafter)
