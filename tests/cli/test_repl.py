"""The loop of a chat, without a terminal: what is on disk after a reply."""

from pathlib import Path

import pytest

from mtp_mlx.chat.conversation import Conversation, Turn
from mtp_mlx.chat.saved import Chats
from mtp_mlx.chat.settings import Settings
from mtp_mlx.cli.repl import Chat
from mtp_mlx.errors import ContextLengthExceeded
from tests.cli.fake_chat import TalkingLLM


def test_a_retry_that_cannot_begin_leaves_the_reply_on_disk(tmp_path: Path):
    chats, talk = Chats(tmp_path), Conversation(turns=(Turn("one", "said"),))
    loading = {"model": "tiny", "draft_model": "auto"}
    chat = Chat(TalkingLLM([["full"]]), loading, Settings(), chats, talk, None)
    chat.keep()
    with pytest.raises(ContextLengthExceeded):
        chat.reply(chat.talk.reopened())
    assert chat.talk == talk
    assert chats.read(chats.names()[0])[0].conversation == talk
