"""Whether llama.cpp runs a file: loaded, and some tokens decoded, in a process of its own, for llama.cpp may end it."""

import ctypes
from pathlib import Path

import numpy as np

from quantplan.errors import BadFile, QuantplanError
from quantplan.execution import Execution
from quantplan.llamacpp import isolated

TOKENS = 8


def check_runs(path: Path | str, threads: int = 0) -> None:
    """BadFile with llama.cpp's own reason where it does not load the file, cannot decode, or gives NaN or infinite logits."""
    try:
        isolated.call(_decode, str(path), threads)
    except QuantplanError as error:
        raise BadFile(str(error)) from None
    except isolated.Died as ended:
        raise BadFile(f"llama.cpp broke off: {ended.said or f'exit code {ended.code}'}") from None


def check_loads(path: Path | str) -> None:
    """BadFile with llama.cpp's own reason where it does not load the file: of the header alone, weights need not be there."""
    try:
        isolated.call(_load, str(path))
    except QuantplanError as error:
        raise BadFile(str(error)) from None
    except isolated.Died as ended:
        raise BadFile(f"llama.cpp broke off: {ended.said or f'exit code {ended.code}'}") from None


def _load(path: str) -> None:
    from quantplan.llamacpp.loaded_model import EngineOptions, LoadedModel

    LoadedModel(Path(path), EngineOptions(no_weights=True)).close()


def _decode(path: str, threads: int) -> None:
    import llama_cpp

    from quantplan.llamacpp.engine import Engine
    from quantplan.llamacpp.loaded_model import EngineOptions

    with Engine(path, EngineOptions(execution=Execution(threads))) as engine:
        tokens = (llama_cpp.llama_token * TOKENS)(*(np.arange(TOKENS) % engine.vocabulary))
        context = engine.new_context(TOKENS, 1)
        try:
            engine.run(context, llama_cpp.llama_batch_get_one(tokens, TOKENS))
            logits = llama_cpp.llama_get_logits_ith(context, -1)
            # encoders have no logits
            if ctypes.cast(logits, ctypes.c_void_p).value and not _all_finite(logits, engine.vocabulary):
                raise QuantplanError("the model produced NaN or infinite logits")
        finally:
            llama_cpp.llama_free(context)


def _all_finite(logits: object, count: int) -> bool:
    return bool(np.isfinite(np.ctypeslib.as_array(logits, (count,))).all())
