"""Second moments as they were collected: read from disk one matrix input, or one expert, at a time."""

from functools import cached_property
from pathlib import Path

import numpy as np

from quantplan.errors import ModelMismatch, NothingSelected
from quantplan.imatrix import Imatrix, ImatrixEntry
from quantplan.records.journal import digest_of
from quantplan.second_moments import (
    FEWEST_TOKENS,
    SecondMoments,
    shrunk_to_diagonal,
    shrunk_to_mean,
    tokens_needed,
    too_few,
)
from quantplan.sensitivity.matrix_inputs import MatrixInput
from quantplan.sensitivity.moment_files import StoredSums, read_index, read_sums, sums_path, write_sums
from quantplan.tensor import Model

_MEAN = "mean"


class CollectedMoments:
    """The second moments in a folder. ``inputs``: all matrix inputs of the model, in the order of its graph."""

    def __init__(self, folder: Path) -> None:
        """BadFile where the folder holds none."""
        self.folder = folder
        index = read_index(folder)
        self.made_from, self.inputs = index.made_from, index.inputs
        self._mean: tuple[int, np.ndarray] | None = None

    def check_belongs_to(self, model: Model, text_digest: str | None = None) -> None:
        """ModelMismatch unless they were collected with this model, and this text where one is given."""
        if self.made_from["model"] != model.digest:
            raise ModelMismatch(
                f"{self.folder}: these second moments were collected with another model than {model.path.name}; "
                "remove the folder and run again"
            )
        if text_digest is not None and self.made_from["text"] != text_digest:
            raise ModelMismatch(
                f"{self.folder}: these second moments were collected over another calibration text; remove the folder and "
                "run again"
            )

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, each in enumerate(self.inputs) for name in each.tensors}

    @cached_property
    def tensors(self) -> frozenset[str]:
        """Matrices whose second moments are complete; of all others at most the diagonal is known."""
        return frozenset(
            name
            for number, each in enumerate(self.inputs)
            if all(sums_path(self.folder, number, expert, True).exists() for expert in range(each.stack))
            for name in each.tensors
        )

    def input_of(self, tensor: str) -> MatrixInput:
        """NothingSelected where the matrix takes no part in a forward pass."""
        if tensor not in self._numbers:
            raise NothingSelected(f"{tensor} has no second moments: nothing is multiplied with it in a forward pass")
        return self.inputs[self._numbers[tensor]]

    def of(self, tensor: str, expert: int = 0, shrink: bool = True) -> SecondMoments:
        """E[x x^T] of the tensor's input, ``expert``: index in the stack; read from disk and the caller's to change.

        ``shrink``: as ``second_moments`` says; without it the plain mean. NothingSelected, BadFile.
        """
        each = self.input_of(tensor)
        if tensor not in self.tensors:
            raise NothingSelected(f"{tensor}: only the diagonal of its second moments was collected")
        number = self._numbers[tensor]
        stored = read_sums(sums_path(self.folder, number, expert, True))
        moments = SecondMoments(
            each.tensors, _mean(stored), stored.tokens, expert if each.stack > 1 else None, each.routed
        )
        if not shrink or each.looked_up:
            return moments
        return shrunk_to_mean(moments, self._mean_of_experts(number)) if each.routed else shrunk_to_diagonal(moments)

    def _mean_of_experts(self, number: int) -> np.ndarray:
        """float32 [columns, columns]: mean over all inputs of all experts, shrunk to its diagonal."""
        if self._mean is None or self._mean[0] != number:
            path = sums_path(self.folder, number, _MEAN, True)
            if not path.exists():
                self._write_mean(number, path)
            stored, each = read_sums(path), self.inputs[number]
            self._mean = number, shrunk_to_diagonal(SecondMoments(each.tensors, _mean(stored), stored.tokens)).matrix
        return self._mean[1]

    def _write_mean(self, number: int, path: Path) -> None:
        columns, tokens = self.inputs[number].columns, 0
        total = np.zeros((columns, columns), np.float32)
        for expert in range(self.inputs[number].stack):
            stored = read_sums(sums_path(self.folder, number, expert, True))
            assert stored.matrix is not None  # the file of a full sum
            total += stored.matrix
            tokens += stored.tokens
        write_sums(path, tokens, total.diagonal(), total)

    def tokens(self, tensor: str) -> np.ndarray:
        """int64 [stack]: inputs that each matrix saw."""
        return np.array([each.tokens for each in self._diagonals(tensor)], np.int64)

    def diagonal(self, tensor: str) -> np.ndarray:
        """float32 [stack, columns]: sums of x_j^2."""
        return np.stack([each.diagonal for each in self._diagonals(tensor)])

    def _diagonals(self, tensor: str) -> list[StoredSums]:
        number, each = self._numbers[tensor], self.input_of(tensor)
        paths = (
            [sums_path(self.folder, number, expert, full) for full in (True, False)] for expert in range(each.stack)
        )
        return [read_sums(full if full.exists() else diagonal, diagonal_only=True) for full, diagonal in paths]

    def notes(self) -> list[str]:
        """What a person should know about inputs that saw too little text or are zero, at most three sentences."""
        short, left, dead = [], [], []
        for name in sorted(self.tensors & {each.watched for each in self.inputs if not each.looked_up}):
            each, tokens = self.input_of(name), self.tokens(name)
            if each.routed:
                left += [(name, int(few)) for few in [(tokens < FEWEST_TOKENS).sum()] if few]
                continue
            if 0 < tokens.min() < tokens_needed(each.columns):
                short.append((each.columns, name, int(tokens.min())))
            if zero := int((self.diagonal(name) == 0).sum()):
                dead.append((name, zero))
        notes = []
        if short:
            columns, name, seen = max(short)
            notes.append(
                f"{len(short)} matrix inputs saw too little text for their width, most {too_few(name, seen, columns)}"
            )
        if left:
            name, few = max(left, key=lambda pair: pair[1])
            notes.append(
                f"experts of {len(left)} inputs saw too few tokens to compensate their rounding and are left to ggml's encoder, "
                f"most {name} ({few} of {self.input_of(name).stack})"
            )
        if dead:
            name, zero = dead[0]
            notes.append(
                f"{len(dead)} matrix inputs have columns that are zero at every token, first {name} ({zero} of "
                f"{self.diagonal(name).size}): their weights are rounded as if they did not matter"
            )
        return notes

    def imatrix(self, dataset: str) -> Imatrix:
        """The imatrix that ``llama-imatrix --process-output`` makes of the same chunks; ``dataset``: the text's name in it.

        Like the tool's it has no entry for token embeddings, tied or not.
        """
        entries = {
            name: self._entry(name)
            for name in sorted(self._numbers)
            if name.startswith("blk.") or name == "output.weight"
        }
        digest = digest_of(dataset, *self.made_from.items())
        chunks, n_ctx = self.made_from["chunks_run"], self.made_from["n_ctx"]
        return Imatrix(self.folder, entries, (dataset,), chunks, n_ctx, legacy=False, digest=digest)

    def _entry(self, name: str) -> ImatrixEntry:
        sums, counts = self.diagonal(name), self.tokens(name)
        if not self.input_of(name).routed:  # the tool keeps one row and one count for stacks without routes
            sums, counts = sums.reshape(1, -1), counts[:1]
        return ImatrixEntry(name, sums, counts)


def _mean(stored: StoredSums) -> np.ndarray:
    matrix = stored.matrix
    assert matrix is not None
    if stored.tokens:
        matrix *= np.float32(1 / stored.tokens)
    return matrix
