"""Turns of a chat: asking, answering, undoing."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mtp_mlx.chat.conversation import Conversation, Turn

STEPS = st.lists(st.sampled_from(["ask", "answer", "undo", "reopen", "clear"]), max_size=30)


def after(steps: list[str]) -> Conversation:
    talk = Conversation("be kind")
    for number, step in enumerate(steps):
        match step:
            case "ask":
                talk = talk.asked(f"message {number}")
            case "answer" if talk.unanswered is not None:
                talk = talk.answered(Turn(talk.unanswered, f"reply {number}"))
            case "undo":
                talk = talk.undone()
            case "reopen":
                talk = talk.reopened()
            case "clear":
                talk = talk.cleared()
    return talk


@settings(derandomize=True, deadline=None, max_examples=60)
@given(STEPS)
def test_roles_take_turns_and_the_system_prompt_comes_once(steps):
    talk = after(steps)
    roles = [message["role"] for message in talk.messages()]
    turns = ["user", "assistant"] * len(talk.turns)
    assert roles == ["system", *turns, *(["user"] if talk.unanswered is not None else [])]


@settings(derandomize=True, deadline=None, max_examples=60)
@given(STEPS)
def test_undo_takes_back_what_was_asked_last(steps):
    talk = after(steps)
    assert talk.asked("more").undone() == talk.asked("x").undone()
    assert talk.asked("more").answered(Turn("more", "yes")).undone().turns == talk.turns


@settings(derandomize=True, deadline=None, max_examples=60)
@given(STEPS)
def test_a_reopened_message_is_the_one_that_was_answered(steps):
    talk = after(steps)
    again = talk.asked("more").answered(Turn("more", "yes")).reopened()
    assert again == talk.asked("more")
    assert again.reopened() == again


def test_a_message_without_a_reply_is_not_sent_with_the_next():
    talk = Conversation().asked("lost").asked("found")
    assert talk.messages() == [{"role": "user", "content": "found"}]


def test_nothing_is_undone_where_there_is_nothing():
    talk = Conversation("be kind")
    assert talk.undone() == talk.reopened() == talk.cleared() == talk
    assert talk.is_empty
