"""The texts of files as a model sees them: chats by its own template with special tokens parsed, plain texts as they are."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from quantplan.errors import BadFile
from quantplan.llamacpp.chat import TEMPLATE_KEY, ChatForm, added_bos
from quantplan.llamacpp.chat_lines import SUFFIX, Conversation, conversations
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.progress import SILENT, Reporter
from quantplan.project import read_text, text_files
from quantplan.tensor import Model
from quantplan.text import SpecialText, Text, joined, special


def read_texts(paths: Sequence[Path], model: Model, *, parse_special: bool = False, report: Reporter = SILENT) -> Text:
    """The text of files and folders, joined in their order; folders in the order of names.

    ``.jsonl`` files are chats: every line is rendered by the chat template of ``model``, and special tokens are parsed. In
    plain texts they are with ``parse_special``, and where chats are among them. Raises BadFile, naming file and line of a chat
    that the template refuses.
    """
    files = [file for path in paths for file in text_files(path)]
    if not parse_special and not any(file.suffix == SUFFIX for file in files):
        return joined(map(read_text, files))
    with Engine(model.path, EngineOptions(vocabulary_only=True)) as engine:
        bos = added_bos(engine)
        text = joined(
            _rendered(file, model, engine) if file.suffix == SUFFIX else special(read_text(file), bos) for file in files
        )
        assert isinstance(text, SpecialText)
        _check_special(text, files, engine, report)
    return text


def _rendered(file: Path, model: Model, engine: Engine) -> SpecialText:
    """The conversations of a file."""
    form = ChatForm(model.metadata, engine)
    if form.template is None:
        raise BadFile(
            f"{file} holds chats, and {model.path.name} has no chat template ({TEMPLATE_KEY}) that says how it reads them; "
            "take the instruct model's file, add its template with gguf-new-metadata --chat-template, or give plain text"
        )
    chats = list(conversations(read_text(file), file))
    pieces = tuple(_written_out(chat, form, f"{file}, line {chat.line}") for chat in chats)
    return SpecialText(pieces, tuple(chat.written for chat in chats), form.bos)


def _written_out(chat: Conversation, form: ChatForm, where: str) -> str:
    try:
        text = form.conversation(chat.messages, chat.tools)
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise BadFile(f"{where}: half of a surrogate pair, which is no character; write the text as UTF-8") from None
    except Exception as error:  # noqa: BLE001 - a template is a program of someone else's and may fail in any way
        raise BadFile(
            f"{where}: the model's chat template refuses this conversation ({error or type(error).__name__}); "
            "change it or take it out"
        ) from None
    if not text.strip():
        raise BadFile(
            f"{where}: the model's chat template makes nothing of this conversation; change it or take it out"
        )
    return text


def _check_special(text: SpecialText, files: Iterable[Path], engine: Engine, report: Reporter) -> None:
    """A warning where parsing makes no difference: the markers in the text are another model's, or there are none."""
    if np.array_equal(engine.tokenize(text), engine.tokenize(text.content)):
        names = ", ".join(map(str, files))
        report.warn(
            f"{names}: no special token of the model is in the text, though they are parsed; is it written for another model?"
        )
