"""What a plan was made from, as its record notes it."""

from quantplan import __version__
from quantplan.devices.limits import Devices
from quantplan.planning.kept_tables import table_digest
from quantplan.planning.request import PlanRequest
from quantplan.sensitivity_table import SensitivityTable


def made_from(request: PlanRequest, table: SensitivityTable) -> dict[str, object]:
    return table.made_from | {
        "quantplan": __version__,
        "command": request.command,
        "types": [kind.name for kind in request.types],
        "backend": table.backend,
        "per": request.per,
        "wishes": _options(request),
        "damage_table": table_digest(table),
    }


def _options(request: PlanRequest) -> dict[str, object]:
    """The constraints and limits as options, those that were given."""
    constraints = request.constraints
    spelled: dict[str, object] = {
        "pin": [f"{selector.text}={kind}" for selector, kind in constraints.pins],
        "min": [f"{selector.text}={kind}" for selector, kind in constraints.floors],
        "max": [f"{selector.text}={kind}" for selector, kind in constraints.ceilings],
        "only": [f"{selector.text}={','.join(map(str, kinds))}" for selector, kinds in constraints.only],
        "tie": list(constraints.ties),
        "max_types": constraints.most_types,
        "course": constraints.course,
        "allow_1_bit": constraints.one_bit,
        "objective": request.objective,
        "max_kld": request.most_kld,
        "min_tps": request.least_tps,
    } | _device_options(request.devices)
    return {name: value for name, value in spelled.items() if value}


def _device_options(devices: Devices | None) -> dict[str, object]:
    if devices is None:
        return {}
    return {
        "vram": devices.vram,
        "ram": devices.ram,
        "gpus": list(devices.gpus),
        "ctx": devices.ctx,
        "kv": ",".join(kind.name.lower() for kind in devices.kv),
        "on_cpu": [selector.text for selector in devices.on_cpu],
    }
