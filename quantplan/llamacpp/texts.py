"""The texts of files as a model sees them: chats by its own template with special tokens parsed, plain texts as they are."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from quantplan.errors import BadFile, BadUsage
from quantplan.llamacpp.chat import TEMPLATE_KEY, ChatForm, added_bos
from quantplan.llamacpp.chat_lines import SUFFIX, Conversation, conversations
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.progress import SILENT, Reporter
from quantplan.project import DEFAULT_TEXTS, read_text, text_files
from quantplan.tensor import Model
from quantplan.text import Domain, Domains, OneText, SpecialText, Text, special


def read_texts(paths: Sequence[Path], model: Model, *, parse_special: bool = False, report: Reporter = SILENT) -> Text:
    """The text of a file, or of several files and folders those of all, each a domain named like its file.

    ``.jsonl`` files are chats: every line is rendered by the chat template of ``model``, and special tokens are parsed. In
    plain texts they are with ``parse_special``. Raises BadFile, naming file and line of a chat that the template refuses, and
    BadUsage for two texts of one name. Of the default texts those that the model cannot read are left out, with a warning.
    """
    files = [file for path in paths for file in text_files(path)]
    _check_names(files)
    if parse_special or any(file.suffix == SUFFIX for file in files):
        with Engine(model.path, EngineOptions(vocabulary_only=True)) as engine:
            texts = [(file, _read(file, model, engine, parse_special, report)) for file in files]
    else:
        texts = [(file, read_text(file)) for file in files]
    domains = tuple(Domain(file.stem, text) for file, text in texts if text)
    return Domains(domains) if len(domains) > 1 else domains[0].text


def _check_names(files: Sequence[Path]) -> None:
    seen: dict[str, Path] = {}
    for file in files:
        if file.stem in seen:
            raise BadUsage(
                f"{seen[file.stem]} and {file} are both called {file.stem}, and tables name texts so: rename one of them"
            )
        seen[file.stem] = file


def _read(file: Path, model: Model, engine: Engine, parse_special: bool, report: Reporter) -> OneText | None:
    """None for a default text that the model cannot read."""
    if file.suffix == SUFFIX:
        rendered = _rendered_or_left_out(file, model, engine, report)
        if rendered is None:
            return None
        text = rendered
    elif parse_special:
        text = special(read_text(file), added_bos(engine))
    else:
        return read_text(file)
    if np.array_equal(engine.tokenize(text), engine.tokenize(text.content)):
        report.warn(
            f"{file}: no special token of the model is in the text, though they are parsed; is it written for another model?"
        )
    return text


def _rendered_or_left_out(file: Path, model: Model, engine: Engine, report: Reporter) -> SpecialText | None:
    """Of the default texts nobody can change anything: what the template does not render whole is left out."""
    bundled = DEFAULT_TEXTS in file.parents
    try:
        text, missing = _rendered(file, model, engine)
    except BadFile as error:
        if not bundled:
            raise
        text, missing = None, str(error)
    if missing:
        report.warn(f"the default text {file.name} is left out: {missing}" if bundled else f"{file}: {missing}")
    return None if missing and bundled else text


def _rendered(file: Path, model: Model, engine: Engine) -> tuple[SpecialText, str]:
    """The conversations of a file, and in words what the template leaves out of them."""
    form = ChatForm(model.metadata, engine)
    if form.template is None:
        raise BadFile(
            f"{file} holds chats, and {model.path.name} has no chat template ({TEMPLATE_KEY}) that says how it reads them; "
            "take the instruct model's file, add its template with gguf-new-metadata --chat-template, or give plain text"
        )
    chats = list(conversations(read_text(file), file))
    pieces = tuple(_written_out(chat, form, f"{file}, line {chat.line}") for chat in chats)
    calling = [(chat, piece) for chat, piece in zip(chats, pieces, strict=True) if chat.called]
    silent = sum(not all(name in piece for name in chat.called) for chat, piece in calling)
    missing = (
        f"the model's chat template leaves tool calls out, in {silent} of {len(calling)} conversations"
        if silent
        else ""
    )
    return SpecialText(pieces, tuple(chat.written for chat in chats), form.bos), missing


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
