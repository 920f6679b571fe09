"""The cases are no test files: their assertions are spelled out all the same."""

import pytest

for name in ("case", "async", "chat", "completion", "error", "schema", "stream", "tool"):
    module = name if name == "case" else f"{name}_cases"
    pytest.register_assert_rewrite(f"tests.openai_client.{module}")
