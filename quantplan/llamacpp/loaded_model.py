"""A model loaded by llama.cpp in this process, on the devices of this machine or of RPC servers, and its vocabulary."""

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quantplan.cache_types import F16_CACHE, CacheTypes
from quantplan.errors import BadFile, QuantplanError
from quantplan.execution import Execution
from quantplan.llamacpp import libraries, rpc
from quantplan.llamacpp.tools import first_reason
from quantplan.llamacpp.trial import check_survives
from quantplan.text import SpecialText, Text, content, undivided

_LOGGED = 20  # lines that are kept, the first
_ALL_LAYERS = -1  # llama_model_params.n_gpu_layers, llama.h
_keep_alive: list[object] = []  # llama.cpp keeps the pointer of the last log callback for the life of the process


@dataclass(frozen=True)
class EngineOptions:
    """``n_ctx``: tokens of a chunk. ``swappable``: weights can be replaced in memory (no mmap).

    ``vocabulary_only``: no weights are read, the engine cuts texts into chunks and does nothing else. ``no_weights``:
    all is checked as for any load, but no weight is read, and nothing can be run. ``execution.rpc``:
    servers that hold all layers, or the last ``gpu_layers``; a server that goes away ends the process, see ``isolated``.
    ``cache_types``: of the KV cache that ``logits`` is computed with.
    """

    n_ctx: int = 256
    execution: Execution = Execution()
    swappable: bool = False
    vocabulary_only: bool = False
    no_weights: bool = False
    cache_types: CacheTypes = F16_CACHE


class LoadedModel:
    """``model`` and ``vocab``: llama.cpp's pointers; ``vocabulary``: number of tokens.

    BadFile where it cannot be loaded, or would end this process.
    """

    def __init__(self, path: Path, options: EngineOptions) -> None:
        check_survives(path)
        libraries.base()  # before llama_cpp loads it: whoever hears ggml's last words is told to it here
        import llama_cpp

        self.options = options
        self._llama, self.path = llama_cpp, path
        self._silence()
        self.model: int | None = self._load(path)
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.vocabulary = int(llama_cpp.llama_vocab_n_tokens(self.vocab))

    def close(self) -> None:
        """Frees the model."""
        if self.model is not None:
            self._llama.llama_model_free(self.model)
            self.model = None

    def tokenize(self, text: Text) -> np.ndarray:
        """int32 [tokens]: what llama.cpp makes of the text, in every command. The tokenizer's own BOS and EOS are added. Domains
        are joined.

        Of a plain text as llama-perplexity has it, of a ``SpecialText`` as llama-server and llama-imatrix --parse-special.
        """
        text = undivided(text)
        raw = content(text).encode("utf-8", "surrogateescape")  # a chat template of the file's may hold any bytes
        room = len(raw) + 16
        tokens = (self._llama.llama_token * room)()
        parsed = isinstance(text, SpecialText)
        count = self._llama.llama_tokenize(self.vocab, raw, len(raw), tokens, room, True, parsed)
        if count < 0:
            raise QuantplanError(f"llama.cpp could not tokenize a text of {len(raw)} bytes")
        return np.frombuffer(memoryview(tokens), np.int32, count).copy()

    def piece(self, token: int, special: bool = False) -> bytes:
        """The bytes that a token stands for; nothing for a special token, unless its text is asked for."""
        buffer = ctypes.create_string_buffer(256)
        size = self._llama.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, special)
        if size < 0:
            buffer = ctypes.create_string_buffer(-size)
            size = self._llama.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, special)
        return buffer.raw[:size]

    def _silence(self) -> None:
        self._log: list[str] = []
        log = self._log

        def keep(level: int, text: bytes, _data: int) -> None:
            if level >= 4:  # GGML_LOG_LEVEL_ERROR
                log.append(text.decode("utf-8", "replace").strip())
                del log[_LOGGED:]

        self._log_callback = self._llama.llama_log_callback(keep)
        _keep_alive.append(self._log_callback)
        self._llama.llama_log_set(self._log_callback, ctypes.c_void_p(0))

    def _model_parameters(self) -> Any:
        """llama_model_params, before the options are set."""
        return self._llama.llama_model_default_params()

    def _load(self, path: Path) -> int:
        parameters = self._model_parameters()
        servers, gpu_layers = self.options.execution.rpc, self.options.execution.gpu_layers
        parameters.n_gpu_layers = gpu_layers
        parameters.vocab_only = self.options.vocabulary_only
        if servers and not self.options.vocabulary_only:
            devices = rpc.devices(servers)
            self._devices = (ctypes.c_void_p * (len(devices) + 1))(*devices, None)
            parameters.devices = ctypes.cast(self._devices, ctypes.c_void_p)
            parameters.n_gpu_layers = gpu_layers or _ALL_LAYERS
        if self.options.swappable:
            parameters.load_mode = self._llama.LLAMA_LOAD_MODE_NONE
        if self.options.no_weights:
            parameters.load_mode, parameters.no_alloc = self._llama.LLAMA_LOAD_MODE_NONE, True
        self._log.clear()
        model = self._llama.llama_model_load_from_file(os.fsencode(path), parameters)
        if not model:
            raise BadFile(f"{path}: llama.cpp cannot load this model: {self._reason()}")
        return model

    def _reason(self) -> str:
        """The first that llama.cpp said: what follows are consequences."""
        return first_reason(self._log) or (self._log[0] if self._log else "no reason given")
