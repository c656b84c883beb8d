"""What a plan says of blocks that only predict further tokens (MTP), and what was measured of their drafts."""

from collections.abc import Sequence

from quantplan.block_ranges import runs_text
from quantplan.budget import human_bytes
from quantplan.evaluate.drafts import DraftAcceptance
from quantplan.plan import Plan
from quantplan.report.cells import estimate
from quantplan.report.table import Columns, Table, table_of
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


def acceptance_table(measured: Sequence[DraftAcceptance]) -> Table:
    columns: Columns[DraftAcceptance] = (
        ("File", lambda file: file.file),
        ("Accepted, greedy", lambda file: estimate(file.greedy)),
        ("Accepted, temperature 1", lambda file: estimate(file.sampled)),
    )
    conditions = f"{measured[0].chunks} chunks of {measured[0].n_ctx} tokens"
    return table_of(f"Drafts of one token by the file's own MTP block, {conditions}", columns, measured)


def acceptance_fields(measured: DraftAcceptance) -> dict[str, object]:
    """For JSON: shares and their standard errors."""
    return {
        "greedy": measured.greedy.value,
        "greedy_err": measured.greedy.stderr,
        "sampled": measured.sampled.value,
        "sampled_err": measured.sampled.stderr,
        "chunks": measured.chunks,
    }
