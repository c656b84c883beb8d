"""libggml's own gguf code through ctypes: contexts of headers, their keys and values.

The C reader is used instead of the gguf package's: a vocabulary of 150,000 strings costs it milliseconds, not
seconds, and what it accepts is what llama.cpp accepts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quantplan.errors import BadFile
from quantplan.llamacpp.libraries import base, captured_log
from quantplan.llamacpp.signatures import GgufParams

SCALARS = {0: "u8", 1: "i8", 2: "u16", 3: "i16", 4: "u32", 5: "i32", 6: "f32", 7: "bool", 8: "str"}
SCALARS |= {10: "u64", 11: "i64", 12: "f64"}
ARRAY = 9  # GGUF_TYPE_ARRAY


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A gguf_context of the header; BadFile with the reason where it cannot be read."""
    _check_magic(path)
    with captured_log() as log:
        context = base().gguf_init_from_file(str(path).encode(), GgufParams(True, None))
    if not context:
        reason = next((line for line in reversed(log) if line), "unreadable header")
        raise BadFile(f"{path}: not a readable GGUF file ({reason.split(': ', 1)[-1]}); is the download complete?")
    try:
        yield context
    except UnicodeDecodeError as error:
        raise BadFile(
            f"{path}: damaged header, a name in it is no text ({error.reason}); is the download complete?"
        ) from None
    finally:
        base().gguf_free(context)


def _check_magic(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(24)
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror or error}; give the path of a GGUF file") from None
    if start[:4] != b"GGUF":
        raise BadFile(
            f"{path}: not a GGUF file (it starts with {start[:4]!r}, not b'GGUF'); convert the model to GGUF first"
        )
    if len(start) < 24:
        raise BadFile(f"{path}: cut short inside the header ({len(start)} bytes); download or convert it again")
    version = struct.unpack_from("<I", start, 4)[0]
    if version not in (2, 3) and version % (1 << 16) == 0:
        raise BadFile(
            f"{path}: a big-endian GGUF file, llama.cpp cannot use it on this machine; convert the model again"
        )
    if version not in (2, 3):
        raise BadFile(f"{path}: GGUF version {version} is not supported (2 and 3 are); convert the model again")


def keys(context: int) -> list[str]:
    """The keys of a header in their order."""
    lib = base()
    return [lib.gguf_get_key(context, index).decode() for index in range(lib.gguf_get_n_kv(context))]
