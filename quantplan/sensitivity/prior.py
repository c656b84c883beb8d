"""What to assume of tensors that nobody probed: documented figures of one small model, and a wide error.

All constants were measured on the bundled reference model (qwen3, 10 blocks, 10.1 M weights) with an imatrix, 8 chunks
(32 where unsure) of 256 tokens of technical prose: scales are geometric means over its blocks, their logarithms spread by
0.3 to 0.8 within a role; errors are medians over the block matrices. Plans made from them are called uncalibrated.
"""

from quantplan.quant_type import QuantType
from quantplan.tensor import Model, Tensor

RELATIVE_ERROR = 1.0
_REFERENCE_BLOCKS = 10
_OUTPUT, _EMBEDDINGS, _OTHER = 2.4, 0.16, 0.015
_ROLES = {  # first match wins; nats per token per unit of relative squared error
    "attn_qkv": 0.02,
    "attn_q": 0.0076,
    "attn_k": 0.0078,
    "attn_v": 0.024,
    "attn_output": 0.024,
    "ffn_gate": 0.018,
    "ffn_up": 0.012,
    "ffn_down": 0.022,
    "ssm_out": 0.024,
}
_ERRORS = {
    "F32": 0.0,
    "F16": 0.0,
    "BF16": 3e-6,
    "Q8_0": 2.82e-5,
    "Q6_K": 2.89e-4,
    "Q5_1": 1.10e-3,
    "Q5_K": 1.21e-3,
    "Q5_0": 1.59e-3,
    "Q4_1": 4.69e-3,
    "Q4_K": 4.82e-3,
    "IQ4_NL": 5.45e-3,
    "IQ4_XS": 5.56e-3,
    "Q4_0": 6.48e-3,
    "IQ3_S": 0.0177,
    "Q3_K": 0.0202,
    "IQ3_XXS": 0.0309,
    "IQ2_S": 0.0594,
    "Q2_K": 0.0684,
    "IQ2_XS": 0.0847,
    "IQ2_XXS": 0.112,
    "IQ1_M": 0.192,
    "IQ1_S": 0.227,
}


def scale(model: Model, tensor: Tensor) -> float:
    """Nats per token per unit of relative squared error; blocks share what ten had, so deep models pay less for each."""
    if not model.runs(tensor):
        return 0.0
    if tensor.name == "output.weight" or (tensor.name == "token_embd.weight" and model.tied):
        return _OUTPUT
    if tensor.block is None:
        return _EMBEDDINGS
    per_block = next((value for role, value in _ROLES.items() if tensor.role.startswith(role)), _OTHER)
    return per_block * _REFERENCE_BLOCKS / max(model.blocks, 1)


def error(kind: QuantType) -> float:
    """Typical relative squared error of a type; for types without a figure the rate of 2^-2 per bit from 0.07 at 2.6 bits."""
    known = _ERRORS.get(kind.name)
    return known if known is not None else 0.07 * 4.0 ** (2.625 - kind.bits)
