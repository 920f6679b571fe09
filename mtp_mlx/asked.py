"""What a request asks for, as the model reads it: token ids, and how to read the reply."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mtp_mlx.constraint.grammar import Begins, Grammar, reply_grammar
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
    names that may be called, `before` is the end of a prompt that leaves a thought open. `grammar`
    is what the reply must be, from where it `begins`; `banned` ids never come in it;
    `is_single_call`: it ends with its first call."""

    ids: tuple[int, ...]
    markers: Markers = NO_MARKERS
    tools: frozenset[str] = frozenset()
    before: tuple[int, ...] = ()
    grammar: Grammar | None = None
    begins: Begins = "reply"
    banned: tuple[int, ...] = ()
    is_single_call: bool = False

    def parts(self, tokenizer: Tokenizer, stops: tuple[str, ...]) -> Parts:
        """What divides the reply. Under a grammar calls have their markers: what is spelled in the
        text of a JSON reply is none."""
        return Parts(
            tokenizer,
            stops,
            self.markers,
            has_tools=bool(self.tools) and self.grammar is None,
            is_single_call=self.is_single_call,
            before=self.before,
        )

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
    schema = options.schema()
    grammar = None if schema is None else reply_grammar(schema, (), NO_MARKERS)
    return Asked(tuple(ids), grammar=grammar)


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
    choice = options.calling()
    markers = Markers.of(tokenizer)
    grammar = _grammar(options, markers)
    ids = encode_chat(
        tokenizer,
        template,
        read_messages(messages),
        tools=tools or None,
        enable_thinking=options.flag("think"),
        preserve_thinking=options.flag("preserve_thinking"),
    )
    before = markers.open_thought(ids)
    may_think = options.flag("think") and markers.divide_thoughts
    is_banned = bool(tools) and not choice.names and markers.call is not None
    return Asked(
        tuple(ids),
        markers,
        frozenset(choice.names and tool_names(tools)),
        before,
        grammar,
        "thought" if before else "either" if may_think else "reply",
        (markers.call,) if is_banned else (),
        options.is_single_call(),
    )


def _grammar(options: Options, markers: Markers) -> Grammar | None:
    """What the reply must be: JSON, a call, or, where both may be, either of them."""
    schema, choice = options.schema(), options.calling()
    if schema is None and not choice.must_call:
        return None
    may_call = choice.must_call or markers.divide_calls
    return reply_grammar(schema, choice.names if may_call else (), markers)
