"""What a sibling's sensitivity table says and what was measured, tensor by tensor."""

from quantplan.report.table import Columns, Table, table_of
from quantplan.sensitivity.sibling import SiblingCheck, SiblingProbe


def sibling_table(check: SiblingCheck) -> Table:
    columns: Columns[SiblingProbe] = (
        ("tensor", lambda probe: probe.tensor),
        ("type", lambda probe: probe.type),
        ("KLD in the table", lambda probe: f"{probe.table:.3e}"),
        ("measured", lambda probe: f"{probe.measured:.3e}"),
        ("table / measured", lambda probe: f"{probe.table / probe.measured:.2f}"),
        ("± s.e.", lambda probe: f"{probe.table / probe.measured * probe.relative_error:.2f}"),
    )
    return table_of("KLD of single tensors, without activation quantization", columns, check.probes, texts=(0, 1))
