"""What a request asks for, as the model reads it: token ids, and how to read the reply."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mtp_mlx.errors import Unsupported
from mtp_mlx.options import Options
from mtp_mlx.request import NO_BUDGET, Thinking
from mtp_mlx.text.messages import read_messages, tool_names
from mtp_mlx.text.parts import NO_MARKERS, Markers, Parts
from mtp_mlx.text.template import ChatTemplate, NoChatTemplate, encode_chat
from mtp_mlx.text.tokenizer import Tokenizer

Message = Mapping[str, object]


@dataclass(frozen=True)
class Asked:
    """A prompt's ids. `markers` divide the reply, those of a raw prompt do not; `tools` are the
    names that may be called, `before` is the end of a prompt that leaves a thought open."""

    ids: tuple[int, ...]
    markers: Markers = NO_MARKERS
    tools: frozenset[str] = frozenset()
    before: tuple[int, ...] = ()

    def parts(self, tokenizer: Tokenizer, stops: tuple[str, ...]) -> Parts:
        """What divides the reply."""
        return Parts(tokenizer, stops, self.markers, has_tools=bool(self.tools), before=self.before)

    def thinking(self, budget: int | None) -> Thinking:
        """The budget as a rule on tokens. Raises Unsupported where no token marks a thought."""
        if budget is None:
            return NO_BUDGET
        opens, closes = self.markers.thought, self.markers.thought_end
        if opens is None or closes is None:
            raise Unsupported(
                "this model's tokenizer has no <|channel> and <channel|>, so thoughts cannot be "
                "counted; leave thinking_budget out",
                param="thinking_budget",
            )
        is_open, calls = bool(self.before), self.markers.call
        return Thinking(opens=opens, closes=closes, left=budget, is_open=is_open, calls=calls)


def raw(ids: Sequence[int], options: Options) -> Asked:
    """A prompt that is no chat. Raises RequestError for an option that needs one."""
    options.check_raw()
    return Asked(tuple(ids))


def chat(
    messages: Sequence[Message],
    options: Options,
    tokenizer: Tokenizer,
    template: ChatTemplate | None,
) -> Asked:
    """A chat in the checkpoint's own template. Raises RequestError."""
    if template is None:
        raise NoChatTemplate()
    options.check_chat()
    tools = options.declared()
    ids = encode_chat(
        tokenizer,
        template,
        read_messages(messages),
        tools=tools or None,
        enable_thinking=options.flag("think"),
        preserve_thinking=options.flag("preserve_thinking"),
    )
    markers = Markers.of(tokenizer)
    return Asked(tuple(ids), markers, frozenset(tool_names(tools)), markers.open_thought(ids))
