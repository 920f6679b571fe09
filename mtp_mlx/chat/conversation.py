"""The turns of a chat, as values: asking, answering, undoing give another conversation."""

from dataclasses import dataclass, replace

from mtp_mlx.request import FinishReason


@dataclass(frozen=True)
class Turn:
    """A message and its reply. `seed`: that of the reply; `model`: who wrote it."""

    user: str
    reply: str
    finish_reason: FinishReason = "stop"
    model: str = ""
    seed: int = 0
    reasoning: str = ""

    def answer(self) -> dict[str, str]:
        """The reply as a message, with its thought, which the template drops unless told not to."""
        said = _message("assistant", self.reply)
        return said | {"reasoning_content": self.reasoning} if self.reasoning else said


@dataclass(frozen=True)
class Conversation:
    """A system prompt, answered turns, and a message that has no reply yet.

    Only a message with a reply is sent again with later ones: templates want the roles in turn.
    """

    system: str | None = None
    turns: tuple[Turn, ...] = ()
    unanswered: str | None = None

    @property
    def is_empty(self) -> bool:
        return not self.turns and self.unanswered is None

    def messages(self) -> list[dict[str, str]]:
        """What the chat template gets: the system prompt once, the turns, the open message."""
        found = [] if self.system is None else [_message("system", self.system)]
        for turn in self.turns:
            found += [_message("user", turn.user), turn.answer()]
        return found if self.unanswered is None else [*found, _message("user", self.unanswered)]

    def asked(self, user: str) -> "Conversation":
        """With a new message, in place of one that stayed without a reply."""
        return replace(self, unanswered=user)

    def answered(self, turn: Turn) -> "Conversation":
        """With the reply to the open message."""
        return replace(self, turns=(*self.turns, turn), unanswered=None)

    def undone(self) -> "Conversation":
        """Without its last message, and the reply to it; the same where there is none."""
        if self.unanswered is not None:
            return replace(self, unanswered=None)
        return replace(self, turns=self.turns[:-1])

    def reopened(self) -> "Conversation":
        """Without the last reply: its message is open again; the same where there is none."""
        if self.unanswered is not None or not self.turns:
            return self
        return replace(self, turns=self.turns[:-1], unanswered=self.turns[-1].user)

    def cleared(self) -> "Conversation":
        """Without messages; the system prompt stays."""
        return Conversation(self.system)


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
