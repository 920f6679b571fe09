"""A 256-token vocabulary with Gemma 4's special tokens, and a small chat template of our own.

Special tokens sit at Gemma's ids. Printable ASCII and newline are single tokens, every other
Unicode character is spelled in UTF-8 byte tokens, so all text without control characters
round-trips (but for U+2581, which stands for a space); tab and carriage return do too.
"""

from __future__ import annotations

from typing import Any

from training import gemma_files
from training.gemma_files import NEWLINE_ID, SPECIAL_TOKENS

VOCAB_SIZE = 256
MERGE_RULES = (
    "▁ t, h e, ▁ a, i n, r e, o n, ▁t he, e r, ▁ s, n d, ▁ w, a t, e s, "
    "o u, ▁ c, i s, ▁ o, in g, e n, ▁ b, ▁ f, ▁a nd, o r, l l, ▁ m, ▁ p"
)
MERGES = [tuple(pair.split()) for pair in MERGE_RULES.split(", ")]
CHAT_TEMPLATE = """\
{%- macro value(item) -%}
{%- if item is string -%}<|"|>{{ item }}<|"|>
{%- elif item is mapping -%}
{ {%- for key, inner in item | dictsort -%}
{{ key }}:{{ value(inner) }}{{ "," if not loop.last }}
{%- endfor -%} }
{%- elif item is sequence -%}
[{%- for inner in item -%}{{ value(inner) }}{{ "," if not loop.last }}{%- endfor -%}]
{%- else -%}{{ item | tojson }}
{%- endif -%}
{%- endmacro -%}
{{- bos_token -}}
{%- set opened = messages and messages[0].role in ["system", "developer"] -%}
{%- set rest = messages[1:] if opened else messages -%}
{%- if opened or enable_thinking or tools -%}
{{- "<|turn>system\\n" -}}
{%- if enable_thinking -%}{{- "<|think|>\\n" -}}{%- endif -%}
{%- if opened -%}{{- messages[0].content | trim -}}{%- endif -%}
{%- for tool in tools or [] -%}
{%- set made = tool.function -%}
<|tool>declaration:{{ made.name }}{description:{{ value(made.description or "") -}}
,parameters:{{ value(made.parameters or {}) }}}<tool|>
{%- endfor -%}
{{- "<turn|>\\n" -}}
{%- endif -%}
{%- set turn = namespace(open=false) -%}
{%- for message in rest -%}
{%- if message.role == "tool" -%}
{%- set answer = message.content -%}
<|tool_response>response:{{ message.name }}
{{- value(answer if answer is mapping else {"value": answer}) }}<tool_response|>
{%- else -%}
{%- set role = "model" if message.role == "assistant" else message.role -%}
{%- if turn.open and role != "model" -%}{{- "<turn|>\\n" -}}{%- endif -%}
{%- if not turn.open or role != "model" -%}{{- "<|turn>" + role + "\\n" -}}{%- endif -%}
{{- (message.content or "") | trim -}}
{%- for call in message.tool_calls or [] -%}
<|tool_call>call:{{ call.function.name }}{{ value(call.function.arguments) }}<tool_call|>
{%- endfor -%}
{%- set turn.open = (message.tool_calls or []) | length > 0 -%}
{%- if not turn.open -%}{{- "<turn|>\\n" -}}{%- endif -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and not turn.open -%}{{- "<|turn>model\\n" -}}{%- endif -%}
"""


def vocabulary() -> dict[str, int]:
    """Token text -> id, all 256 ids used."""
    fixed = {**SPECIAL_TOKENS, "\n": NEWLINE_ID}
    free = [index for index in range(VOCAB_SIZE) if index not in fixed.values()]
    ordinary = ["▁"] + [chr(code) for code in range(0x21, 0x7F)]
    ordinary += [f"<0x{byte:02X}>" for byte in _spelled_bytes()]
    ordinary += [left + right for left, right in MERGES]
    if len(ordinary) != len(free):
        raise ValueError(f"{len(ordinary)} ordinary tokens for {len(free)} free ids")
    return {**fixed, **dict(zip(ordinary, free, strict=True))}


def _spelled_bytes() -> list[int]:
    """Tab, carriage return and every byte of a multi-byte UTF-8 character."""
    return [0x09, 0x0D, *range(0x80, 0xC0), *range(0xC2, 0xF5)]


def tokenizer_json() -> dict[str, Any]:
    """tokenizer.json for the `tokenizers` library: byte-fallback BPE, as Gemma's."""
    return gemma_files.tokenizer_json(vocabulary(), MERGES)
