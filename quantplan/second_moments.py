"""Second moments of a matrix input, H = E[x x^T]: the metric in which rounding errors of that matrix are judged.

With D = W - Q the mean squared error at the output is tr(D H D^T); the imatrix is the diagonal of H. H is a mean over
tokens, so it is noisy where tokens are few: it is shrunk towards its diagonal, and that of an expert towards the mean of
all experts, by the weight that minimizes the expected squared error (Schaefer and Strimmer, 2005; Gaussian inputs assumed).
Tokens of a text are not independent and the inverse of H suffers more than H itself, so the noise is taken for a multiple of
what independent tokens would leave; the multiples are measured, see below.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from quantplan.imatrix import FEW_HITS

# On inputs of 256 to 512 columns compensated rounding at Q4_K keeps .0100 of KLD with 8 tokens a column, .0088 with 16,
# .0082 with 32 and .0077 with 256, ggml's encoder .0130: 16 have most of the gain.
TOKENS_PER_COLUMN = 16
FEWEST_TOKENS = FEW_HITS  # an expert that saw fewer is left to ggml's encoder: what is known of it is the others' mean
# Multiples of the noise that independent tokens would leave. Error of GPTQ over plain rounding to 4 bits, judged on other text,
# for 5 matrices of 256 and 512 columns of the bundled model: multiples 1, 3, 6, 12, 25, 50 gave 1.02 .90 .85 .81 .79 .79 at 256
# tokens, .75 .71 .69 .68 .69 .71 at 1024, .54 .54 .54 .53 .54 .55 at 4096.
_TO_DIAGONAL = 12
# The same for three inputs whose tokens a random router shared out among 8 experts, tokens per expert 128 and 2048: multiples
# 0, 1, 3, 12, 50 gave 1.14 .57 .56 .56 .56 and .56 .52 .51 .52 .54; the mean of all experts alone .56.
_TO_MEAN = 3
_BETWEEN_EXPERTS = (
    0.25  # squared distance of an expert's H from the mean, over the mean's squared norm; as FEW_HITS assumes
)
_PANEL_BYTES = 32 << 20
_TINY = 1e-30


def tokens_needed(columns: int) -> int:
    """Tokens below which H of so many columns is noisy enough to tell a person."""
    return TOKENS_PER_COLUMN * columns


@dataclass(frozen=True)
class SecondMoments:
    """E[x x^T] of one matrix input over a calibration text.

    ``tensors``: the matrices that share the input (attn_q, attn_k and attn_v); ``matrix``: float32 [columns, columns],
    symmetric, C order; ``tokens``: inputs x that were summed; ``expert``: index in the stack, None for a plain matrix;
    ``routed``: a router chooses among the stack (the heads of MLA are stacked, not routed); ``shrinkage``: weight of what
    ``matrix`` was shrunk towards, 0 to 1.
    """

    tensors: tuple[str, ...]
    matrix: np.ndarray
    tokens: int
    expert: int | None = None
    routed: bool = False
    shrinkage: float = 0.0

    @property
    def columns(self) -> int:
        return self.matrix.shape[0]

    @property
    def diagonal(self) -> np.ndarray:
        """float32 [columns]: E[x_j^2], what an imatrix holds."""
        return self.matrix.diagonal()

    @property
    def dead(self) -> np.ndarray:
        """bool [columns]: inputs that were zero at every token; any weight there is as good as any other."""
        return self.diagonal == 0

    @property
    def usable(self) -> bool:
        """Whether rounding should be compensated with it; where not, leave the matrix to ggml's encoder."""
        return bool(self.diagonal.any()) and (not self.routed or self.tokens >= FEWEST_TOKENS)

    def notes(self) -> list[str]:
        """What a person should know about it, a sentence each."""
        name = self.tensors[0] if self.expert is None else f"{self.tensors[0]}[{self.expert}]"
        notes = []
        if not self.usable:
            notes.append(f"{name}: {self.tokens} tokens are too few to compensate rounding; left to ggml's encoder")
        elif self.tokens < tokens_needed(self.columns):
            notes.append(too_few(name, self.tokens, self.columns))
        if self.usable and self.dead.any():
            notes.append(f"{name}: {int(self.dead.sum())} of {self.columns} inputs are zero at every token")
        return notes


def too_few(name: str, tokens: int, columns: int) -> str:
    """The sentence for an input that saw too little text for its width."""
    return (
        f"{name}: {tokens:,} tokens for {columns:,} columns, {tokens_needed(columns):,} would do; more calibration text makes "
        "the rounding better"
    )


def shrunk_to_diagonal(moments: SecondMoments) -> SecondMoments:
    """The same with off-diagonal values lowered by their expected noise: much where tokens are few for the width.

    With n independent tokens an off-diagonal value of Gaussian inputs has a variance of about h_ii h_jj / n. Their sum N and
    the squared off-diagonal values S give the diagonal's weight 12 N / (12 N + S - N). The matrix is changed in place.
    """
    if not moments.tokens:
        return moments
    matrix, diagonal = moments.matrix, moments.diagonal.astype(np.float64)
    squares = float(np.square(diagonal).sum())
    noise = max(0.0, float(diagonal.sum()) ** 2 - squares) / moments.tokens
    signal = max(0.0, _squared_norm(matrix) - squares - noise)
    weight = _TO_DIAGONAL * noise / max(_TO_DIAGONAL * noise + signal, _TINY)
    kept = diagonal.astype(np.float32)
    matrix *= np.float32(1 - weight)
    np.fill_diagonal(matrix, kept)
    return replace(moments, shrinkage=weight)


def shrunk_to_mean(moments: SecondMoments, mean: np.ndarray) -> SecondMoments:
    """H' = (n H + k mean) / (n + k) for an expert that saw n tokens; ``mean``: float32 like H, over all experts.

    k = 3 (1 + r) / 0.25 with r = tr(mean)^2 / |mean|^2, the effective number of dimensions: the noise of one token's x x^T
    over the squared distance between experts. The matrix is changed in place.
    """
    trace, norm = float(mean.trace(dtype=np.float64)), _squared_norm(mean)
    k = _TO_MEAN * (1 + trace**2 / max(norm, _TINY)) / _BETWEEN_EXPERTS
    weight = k / (moments.tokens + k)
    matrix = moments.matrix
    matrix *= np.float32(1 - weight)
    for rows in _panels(*matrix.shape):
        matrix[rows] += np.float32(weight) * mean[rows]
    return replace(moments, shrinkage=weight)


def relative_error(difference: np.ndarray, moments: np.ndarray, weights: np.ndarray) -> float:
    """e = tr(D H D^T) / tr(W H W^T).

    ``difference``, ``weights``: float32 [rows, columns]; ``moments``: float32 [columns, columns]. 0 where both are zero,
    infinite where only the weights' energy is.
    """
    error, energy = output_energy(difference, moments), output_energy(weights, moments)
    if energy <= 0:
        return 0.0 if error <= 0 else math.inf
    return max(0.0, error) / energy


def output_energy(rows: np.ndarray, moments: np.ndarray) -> float:
    """tr(A H A^T) of float32 [rows, columns], in panels of rows: 32 MiB besides its arguments."""
    total = 0.0
    for panel in _panels(*rows.shape):
        part = rows[panel]
        total += float(np.einsum("ij,ij->i", part @ moments, part).sum(dtype=np.float64))
    return total


def _squared_norm(matrix: np.ndarray) -> float:
    return sum(float(np.vdot(matrix[rows], matrix[rows])) for rows in _panels(*matrix.shape))


def _panels(rows: int, columns: int) -> list[slice]:
    """Slices of rows that make 32 MiB of float32 each."""
    size = max(1, _PANEL_BYTES // (4 * max(1, columns)))
    return [slice(start, start + size) for start in range(0, rows, size)]
