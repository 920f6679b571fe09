"""A18: a model without a chat template, or with a damaged one."""

from pathlib import Path

import pytest

import mtp_mlx
from mtp_mlx.errors import RequestError
from mtp_mlx.text.renderer import RENDERER
from tests.bad_input.faults import Fault, both_backends, check, each
from tests.bad_input.files import copy_pair

NAME = "chat_template.jinja"
MESSAGES = [{"role": "user", "content": "hello"}]


@both_backends
def test_without_a_template_chats_are_refused_and_prompts_work(backend, tmp_path):
    target, drafter = copy_pair(tmp_path, "31b")
    (target / NAME).unlink()
    RENDERER.close()
    llm = mtp_mlx.load(target, draft_model=drafter, backend=backend)
    with pytest.raises(RequestError) as caught:
        llm.chat(MESSAGES, max_tokens=2)
    assert (caught.value.code, caught.value.param) == ("no_chat_template", "messages")
    assert caught.value.exit_code == 2
    assert "has no chat template" in str(caught.value)
    assert str(caught.value).isprintable()
    reply = llm.generate("hello", max_tokens=2, num_draft_tokens=1)
    assert 1 <= len(reply.token_ids) <= 2
    assert RENDERER._process is None, "no template, and yet a process for templates"


def written(content: bytes):
    def damage(target: Path, drafter: Path) -> None:
        (target / NAME).write_bytes(content)

    return damage


@each(
    [
        Fault("open_block", written(b"{% if x %}"), (NAME, "is not a template")),
        Fault("unknown_filter", written(b"{{ x | nothing }}"), (NAME, "is not a template")),
        Fault("newline_error", written(b"{% a\nb %}"), (NAME, "is not a template")),
        Fault("not_utf8", written(b"\xff"), (NAME, "is not UTF-8")),
        Fault("2_mib", written(b"x" * (2 << 20)), (NAME, "at most 1,048,576", "2,097,152")),
    ]
)
def test_a_damaged_template_is_refused_at_load(fault, tmp_path):
    check(fault, tmp_path)
