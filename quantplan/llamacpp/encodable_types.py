"""Which types the installed libggml encodes: asked of the library, so that a newer one's types can be planned with.

Its numbering is walked to the count that libllama names. A type that quantplan's table has and whose encoder the library
exports is taken at its word; anything else encodes one block in a process of its own first, because ggml ends the
process for what it cannot encode. Those answers are kept for each build of the library.
"""

import json
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np

from quantplan.errors import ToolFailed
from quantplan.llamacpp import ggml, isolated, libraries
from quantplan.quant_type import BY_ID, QuantType, parse_types, register
from quantplan.records.json_text import parse_json

_MOST_TYPES = 4096  # a count beyond this was read from another structure than expected


def parse_writable(text: str) -> tuple[QuantType, ...]:
    """``parse_types`` among the types that the installed library encodes; the set ``any`` is all of them."""
    return parse_types(text, writable_types())


@cache
def writable_types() -> tuple[QuantType, ...]:
    """Every type that the installed library encodes and decodes, largest first.

    Types that are not in quantplan's table join it (``quant_type.register``) with the library's own numbers. ToolFailed
    where library and table disagree about a type, ToolMissing without a library.
    """
    writable = [
        kind for kind in map(installed_type, range(type_count())) if kind and kind.for_weights and _encodes(kind)
    ]
    for kind in writable:
        register(kind)
    return tuple(sorted(writable, key=lambda kind: (-kind.bits, kind.name)))


def type_count() -> int:
    """GGML_TYPE_COUNT: what llama_model_quantize_default_params (llama.h) has where no type is chosen."""
    parameters = libraries.load("llama").llama_model_quantize_default_params()
    if (
        parameters.output_tensor_type != parameters.token_embedding_type
        or not 0 < parameters.output_tensor_type <= _MOST_TYPES
    ):
        raise ToolFailed("the installed libllama does not say how many types it has; see `quantplan doctor`")
    return parameters.output_tensor_type


def installed_type(number: int) -> QuantType | None:
    """The type with that number as the library describes it; None for numbers that are not in use."""
    name, (block, size) = (ggml.installed_name(number) or "").upper(), ggml.installed_block(number)
    if not block or not size:
        return None
    known = BY_ID.get(number)
    if known is None:
        needs = bool(libraries.base().ggml_quantize_requires_imatrix(number))
        return QuantType(name, number, block, size, "other", needs_imatrix=needs)
    if (known.name, known.block, known.block_bytes) != (name, block, size):
        raise ToolFailed(
            f"the installed libggml has {name} of {block} weights in {size} bytes as type {number}, quantplan takes it for "
            f"{known} of {known.block} in {known.block_bytes}; update quantplan"
        )
    return known


def _encodes(kind: QuantType) -> bool:
    if kind.name == "F32":
        return True
    if not ggml.can_quantize(kind):  # no way back to floats: what kernels round activations to
        return False
    exported = kind.family == "float" or hasattr(libraries.base(), f"quantize_{ggml.installed_name(kind.ggml_id)}")
    return (kind.ggml_id in BY_ID and exported) or _tried(kind)


# --- types that nobody vouches for


def _tried(kind: QuantType) -> bool:
    """Whether a process of its own survives encoding a block; remembered for each build of the library."""
    file = answers_file()
    known = _read(file)
    if kind.name not in known:
        known[kind.name] = survives(kind.ggml_id)
        _write(file, known)
    return known[kind.name]


def survives(number: int) -> bool:
    try:
        isolated.call(encode_one, number)
    except (isolated.Died, AssertionError):
        return False
    return True


def encode_one(number: int) -> None:
    """Encodes and decodes one block of the type, with importance; ggml may end the process."""
    quant_type = installed_type(number)
    assert quant_type is not None
    weights = np.linspace(-1, 1, quant_type.block, dtype=np.float32).reshape(1, -1)
    encoded = ggml.quantize(weights, quant_type, np.ones_like(weights))
    assert np.isfinite(ggml.dequantize(encoded, quant_type, quant_type.block)).all()


def answers_file() -> Path:
    import platformdirs

    stamp = libraries.library_path("ggml-base").stat()
    return Path(platformdirs.user_cache_dir("quantplan")) / f"types-{stamp.st_size:x}-{stamp.st_mtime_ns:x}.json"


def _read(file: Path) -> dict[str, bool]:
    try:
        content = parse_json(file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(file: Path, known: dict[str, bool]) -> None:
    with suppress(OSError):  # without it the question is asked again next time, which takes a second
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(known))
        part.replace(file)
