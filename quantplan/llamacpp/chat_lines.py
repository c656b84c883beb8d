"""Chats as people keep them: a .jsonl file, a conversation a line, as OpenAI and others take them for fine-tuning."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantplan.errors import BadFile

SUFFIX = ".jsonl"
_EXPECTED = '{"messages": [{"role": "user", "content": "..."}, ...]}'
_WRITTEN_KEYS = ("content", "reasoning_content")


@dataclass(frozen=True)
class Conversation:
    """``line``: its number in the file. ``messages``: role, content (a text) and whatever else the template may know, such as
    tool_calls; ``tools``: those that were offered."""

    line: int
    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[object, ...] = ()

    @property
    def written(self) -> str:
        """What people and the model wrote: no roles, no tools, nothing that the template adds."""
        texts = (message.get(key) for message in self.messages for key in _WRITTEN_KEYS)
        return "\n".join(text for text in texts if text)

    @property
    def called(self) -> tuple[str, ...]:
        """Names of the functions that are called."""
        calls = (call for message in self.messages for call in message.get("tool_calls") or ())
        named = (call.get("function") for call in calls)
        return tuple(str(each["name"]) for each in named if isinstance(each, Mapping) and "name" in each)


def conversations(text: str, path: Path) -> Iterator[Conversation]:
    """Those of a file's text, empty lines left out. BadFile naming file and line where one is not a conversation."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _conversation(line, number, f"{path}, line {number}")


def _conversation(line: str, number: int, where: str) -> Conversation:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{where}: not JSON ({error}); a line of a chat file is {_EXPECTED}") from None
    messages = fields.get("messages") if isinstance(fields, dict) else None
    if not isinstance(messages, list) or not messages:
        raise BadFile(
            f'{where}: no "messages"; a line of a chat file is {_EXPECTED}. Is it no chat? Call it .txt to read it as plain text'
        )
    tools = fields.get("tools") or ()
    if not isinstance(tools, list | tuple):
        raise BadFile(f'{where}: "tools" must be a list of the tools that are offered')
    return Conversation(number, tuple(_message(each, where) for each in messages), tuple(tools))


def _message(message: object, where: str) -> Mapping[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise BadFile(f'{where}: a message without a "role"; a line of a chat file is {_EXPECTED}')
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise BadFile(f'{where}: "tool_calls" must be a list of objects with the name and the arguments of a function')
    return message | {"content": _content(message.get("content"), where)}


def _content(content: object, where: str) -> str:
    """A text, or the parts of one."""
    parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise BadFile(f"{where}: the content of a message must be a text; images and the like cannot be read here")
    return "".join(texts)  # type: ignore[arg-type]
