"""The imatrix that llama-quantize is given: the file itself, or a copy without sums of zero, which it would take for weights."""

import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from quantplan.gguf.imatrix_files import read_imatrix, write_imatrix
from quantplan.tensor import Model


@contextmanager
def imatrix_with_data(path: Path | None, model: Model, excluded: Collection[str] = ()) -> Iterator[Path | None]:
    """The path, or that of a temporary file of the same name: the name becomes part of what is built.

    ``excluded``: tensors whose data llama-quantize is not given.
    """
    if path is None:
        yield None
        return
    imatrix = read_imatrix(path)
    cleaned = imatrix.without(excluded).with_data(model)
    if all(cleaned.entries.get(name) is entry for name, entry in imatrix.entries.items()):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="quantplan-") as folder:
        copy = Path(folder) / path.name
        write_imatrix(cleaned, copy)
        yield copy
