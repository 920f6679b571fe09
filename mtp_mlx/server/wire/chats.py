"""The messages and options of a chat."""

from collections.abc import Sequence
from typing import Any

from mtp_mlx.errors import RequestError
from mtp_mlx.fields import shown
from mtp_mlx.server.wire.reading import Json
from mtp_mlx.server.wire.requests import ChatRequest, Content, Message, NamedChoice, TokenizeRequest
from mtp_mlx.text.messages import read_messages, read_tools, tool_names


def plain_messages(messages: Sequence[Message]) -> list[Json]:
    """Messages as chat templates know them: nothing but what they read. Raises RequestError."""
    return read_messages([_plain(each) for each in messages])


def _plain(message: Message) -> Json:
    found = message.model_dump(exclude_none=True, include=set(type(message).model_fields))
    if message.role == "assistant":
        found.setdefault("content", "")
        found["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.function.name,
                    "arguments": call.function.arguments or {},
                },
            }
            for call in message.tool_calls or ()
        ]
        if not found["tool_calls"]:
            del found["tool_calls"]
    if message.role == "tool":
        found["content"] = _joined(message.content)
    elif isinstance(found["content"], list):
        found["content"] = [{"type": "text", "text": part["text"]} for part in found["content"]]
    return found


def _joined(content: Content) -> str:
    """Templates write the answer of a tool as one value."""
    return content if isinstance(content, str) else "".join(part.text for part in content)


def chat_options(asked: ChatRequest, given: Json) -> dict[str, Any]:
    """The options that only chats have. Raises RequestError where two contradict each other."""
    found: dict[str, Any] = thinking_options(asked, asked.reasoning_effort)
    if asked.thinking_budget is not None:
        found["thinking_budget"] = asked.thinking_budget
    tools = read_tools(given.get("tools", []))
    if tools:
        found["tools"] = tools
    choice = asked.tool_choice
    if isinstance(choice, NamedChoice):
        name = choice.function.name
        if name not in tool_names(tools):
            raise RequestError(
                f"tool_choice.function.name {shown(name)} is not among the tools",
                param="tool_choice.function.name",
            )
        found["tool_choice"] = {"type": "function", "function": {"name": name}}
    elif choice == "required" and not tools:
        raise RequestError('tool_choice "required" needs tools', param="tool_choice")
    elif choice == "required" or (choice == "none" and tools):
        found["tool_choice"] = choice
    if asked.parallel_tool_calls is False and tools:
        found["parallel_tool_calls"] = False
    return found


def thinking_options(
    asked: ChatRequest | TokenizeRequest, effort: str | None = None
) -> dict[str, Any]:
    """Whether the model is to think, which three fields can say."""
    values = asked.chat_template_kwargs
    said = {
        "reasoning_effort": None if effort is None else effort != "none",
        "enable_thinking": asked.enable_thinking,
        "chat_template_kwargs.enable_thinking": None if values is None else values.enable_thinking,
    }
    given = {name: value for name, value in said.items() if value is not None}
    if len(set(given.values())) > 1:
        raise RequestError(
            f"{' and '.join(given)} contradict each other; give one of them",
            param=next(iter(given)),
        )
    found: dict[str, Any] = {}
    if True in given.values():
        found["think"] = True
    if values is not None and values.preserve_thinking:
        found["preserve_thinking"] = True
    return found
