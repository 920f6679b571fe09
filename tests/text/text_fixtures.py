"""A small tokenizer and chat template of Gemma's form, built on the spot."""

import json

from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Library

CONTROLS = (
    "<pad>", "<eos>", "<bos>", "<unk>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>",
    "<|tool_response>", "<tool_response|>", '<|"|>', "<|think|>", "<|channel>", "<channel|>",
    "<|turn>", "<turn|>",
)  # fmt: skip
UNFLAGGED = "<unflagged>"  # an added token that the file does not call special
NEWLINES = "\n\n"  # likewise, of white space alone
BYTES = 256
LETTERS = "▁abcdefghijklmnopqrstuvwxyzABCDEF<>|\"'_/{}:,.\n"
WORDS = ("tu", "tur", "turn", "▁a", "us", "er", "user", "mo", "de", "model", "l", "th", "▁th")
FIRST_BYTE = len(CONTROLS)

TEMPLATE = """
{%- macro quote(value) -%}
    {%- if value is string -%}{{- '<|"|>' + value + '<|"|>' -}}
    {%- elif value is mapping -%}
        {{- '{' -}}
        {%- for key, item in value | dictsort -%}
            {{- key -}}:{{- quote(item) -}}{%- if not loop.last %},{% endif -%}
        {%- endfor -%}
        {{- '}' -}}
    {%- else -%}{{- value -}}{%- endif -%}
{%- endmacro -%}
{%- macro visible(text) -%}
    {%- for part in text.split('<channel|>') -%}{{- part.split('<|channel>')[0] -}}{%- endfor -%}
{%- endmacro -%}
{{- bos_token -}}
{%- set rest = messages -%}
{%- if enable_thinking or tools or messages[0]['role'] in ['system', 'developer'] -%}
    {{- '<|turn>system\\n' -}}
    {%- if enable_thinking %}{{- '<|think|>\\n' -}}{% endif -%}
    {%- if messages[0]['role'] in ['system', 'developer'] -%}
        {{- messages[0]['content'] | trim -}}
        {%- set rest = messages[1:] -%}
    {%- endif -%}
    {%- for tool in tools or [] -%}
        {{- '<|tool>declaration:' + tool['function']['name'] -}}
        {{- quote(tool['function']['parameters']['type'] | upper) + '<tool|>' -}}
    {%- endfor -%}
    {{- '<turn|>\\n' -}}
{%- endif -%}
{%- for message in rest -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {%- if role not in ['user', 'model'] %}{{ raise_exception('no role ' + role) }}{% endif -%}
    {{- '<|turn>' + role + '\\n' -}}
    {%- for call in message['tool_calls'] or [] -%}
        {{- '<|tool_call>call:' + call['name'] + quote(call['arguments']) + '<tool_call|>' -}}
    {%- endfor -%}
    {%- if message['content'] is string -%}
        {{- (visible(message['content']) if role == 'model' else message['content']) | trim -}}
    {%- else -%}
        {%- for part in message['content'] -%}{{- part['text'] | trim -}}{%- endfor -%}
    {%- endif -%}
    {{- '<turn|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt %}{{- '<|turn>model\\n' -}}{% endif -%}
"""


def build_library(ignore_merges: bool = False) -> Library:
    """The library's tokenizer: BPE with byte fallback, control tokens first, as in Gemma."""
    vocabulary = {text: at for at, text in enumerate(CONTROLS)}
    for byte in range(BYTES):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    for text in LETTERS:
        vocabulary.setdefault(text, len(vocabulary))
    merges = []
    for word in WORDS:
        cut = next((i for i in range(len(word) - 1, 0, -1) if _has(vocabulary, word, i)), 0)
        if cut and word not in vocabulary:
            merges.append((word[:cut], word[cut:]))
            vocabulary[word] = len(vocabulary)
    for text in (UNFLAGGED, NEWLINES):
        vocabulary[text] = len(vocabulary)
    library = Library(
        models.BPE(
            vocabulary,
            merges,
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
            ignore_merges=ignore_merges,
        )
    )
    library.normalizer = normalizers.Replace(" ", "▁")
    library.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    library.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    library.add_special_tokens(list(CONTROLS))
    library.add_tokens([AddedToken(t, normalized=False) for t in (UNFLAGGED, NEWLINES)])
    return library


def _has(vocabulary: dict, word: str, cut: int) -> bool:
    return word[:cut] in vocabulary and word[cut:] in vocabulary


def write_model(folder, library: Library | None = None, template: str | None = TEMPLATE) -> None:
    (folder / "tokenizer.json").write_text((library or build_library()).to_str(), encoding="utf-8")
    config = {
        "bos_token": "<bos>",
        "eos_token": {"content": "<eos>"},
        "eot_token": "<turn|>",
        "model_max_length": 10**18,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
