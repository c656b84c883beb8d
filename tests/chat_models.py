"""The bundled model with a chat template, written by gguf's own scripts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

CHAT = (
    "{%- for message in messages -%}<|endoftext|>{{ message.role }}: {{ message.content }}\n{% endfor -%}"
    "{%- if add_generation_prompt -%}assistant:{% endif -%}"
)
SWITCHED = CHAT + "{%- if not enable_thinking %} <think>\n\n</think>\n{% endif -%}"  # as Qwen3 does it
ALWAYS = CHAT + "{%- if add_generation_prompt %} <think>\n{% endif -%}"  # as DeepSeek-R1 does it
# tools offered, calls and their results; turns must alternate
TOOLS = (
    "{%- if tools %}<|endoftext|>tools: {{ tools | tojson }}\n{% endif %}"
    "{%- for message in messages %}"
    "{%- if loop.index > 1 and message.role == messages[loop.index0 - 1].role %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "<|endoftext|>{{ message.role }}: {{ message.content }}"
    "{%- for call in message.tool_calls or [] %}<call>{{ call.function.name }} {{ call.function.arguments | tojson }}{% endfor %}"
    "{{ '\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}assistant:{% endif %}"
)


def with_template(source: Path, path: Path, template: str) -> Path:
    """A copy with ``tokenizer.chat_template``."""
    _script("gguf_new_metadata", "--force", "--chat-template", template, source, path)
    return path


def with_bos(source: Path, path: Path) -> Path:
    """A copy whose tokenizer puts the BOS token in front of every text."""
    shutil.copy(source, path)
    path.chmod(0o644)
    _script("gguf_set_metadata", "--force", path, "tokenizer.ggml.add_bos_token", "1")
    return path


def _script(name: str, *words: object) -> None:
    subprocess.run([sys.executable, "-m", f"gguf.scripts.{name}", *map(str, words)], check=True, capture_output=True)
