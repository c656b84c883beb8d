"""What a plan says of blocks that only predict further tokens (MTP)."""

from quantplan.block_ranges import runs_text
from quantplan.budget import human_bytes
from quantplan.plan import Plan
from quantplan.tensor import Model, Tensor


def draft_tensors(plan: Plan, model: Model) -> list[Tensor]:
    """Those whose types the plan decides."""
    planned = {tensor.name for tensor in plan.tensors if tensor.rule}
    return [tensor for tensor in model.tensors if tensor.name in planned and model.drafts(tensor)]


def drafts_note(plan: Plan, model: Model) -> str:
    """A sentence; empty for a plan that decides no such tensor."""
    tensors = draft_tensors(plan, model)
    if not tensors:
        return ""
    blocks = runs_text(sorted({tensor.block or 0 for tensor in tensors}))
    size = sum(tensor.bytes_as(plan.types[tensor.name]) for tensor in tensors)
    return (
        f"{len(tensors)} tensors of block {blocks} ({human_bytes(size)}) only predict further tokens (MTP): not in the expected "
        "KLD; each has a type as if it cost what its role costs in the last block that runs"
    )
