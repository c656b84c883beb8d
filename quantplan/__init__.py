"""quantplan finds, builds and proves the best mixed quantization of a GGUF model for a given size.

What the commands do as functions: docs/python.md. Each name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "BadFile",
    "BadUsage",
    "Budget",
    "BudgetImpossible",
    "CompareOptions",
    "Comparison",
    "Constraints",
    "Devices",
    "Execution",
    "Frontier",
    "Imatrix",
    "MeasureOptions",
    "Measurement",
    "Model",
    "Plan",
    "ProbeOptions",
    "QuantplanError",
    "Reporter",
    "Selector",
    "SensitivityOptions",
    "SensitivityTable",
    "compare",
    "emit",
    "frontier",
    "measure",
    "parse_types",
    "quantize",
    "read_imatrix",
    "read_model",
    "read_plan",
    "read_texts",
    "sensitivities",
    "solve",
    "statistics",
    "write_plan",
]

if TYPE_CHECKING:
    from quantplan.analyze.statistics import statistics
    from quantplan.api import frontier, quantize, read_plan, sensitivities, solve, write_plan
    from quantplan.budget import Budget
    from quantplan.comparison import Comparison
    from quantplan.devices.limits import Devices
    from quantplan.errors import BadFile, BadUsage, BudgetImpossible, QuantplanError
    from quantplan.evaluate.compare import CompareOptions
    from quantplan.evaluate.compare import compare_files as compare
    from quantplan.evaluate.measure import MeasureOptions, measure
    from quantplan.execution import Execution
    from quantplan.gguf.imatrix_files import read_imatrix
    from quantplan.gguf.reader import read_model
    from quantplan.imatrix import Imatrix
    from quantplan.llamacpp.encodable_types import parse_writable as parse_types
    from quantplan.llamacpp.texts import read_texts
    from quantplan.measurement import Measurement
    from quantplan.plan import Plan
    from quantplan.planning.frontier import Frontier
    from quantplan.progress import Reporter
    from quantplan.recipes.emit import plan_text as emit
    from quantplan.selector import Selector
    from quantplan.sensitivity.estimate import SensitivityOptions
    from quantplan.sensitivity.tensor_swap import ProbeOptions
    from quantplan.sensitivity_table import SensitivityTable
    from quantplan.solver.constraints import Constraints
    from quantplan.tensor import Model

_ALIASES = {"compare": "compare_files", "emit": "plan_text", "parse_types": "parse_writable"}
_MODULES = {
    "analyze.statistics": ("statistics",),
    "api": ("frontier", "quantize", "read_plan", "sensitivities", "solve", "write_plan"),
    "budget": ("Budget",),
    "comparison": ("Comparison",),
    "devices.limits": ("Devices",),
    "errors": ("BadFile", "BadUsage", "BudgetImpossible", "QuantplanError"),
    "evaluate.compare": ("CompareOptions", "compare"),
    "evaluate.measure": ("MeasureOptions", "measure"),
    "execution": ("Execution",),
    "gguf.imatrix_files": ("read_imatrix",),
    "gguf.reader": ("read_model",),
    "imatrix": ("Imatrix",),
    "llamacpp.encodable_types": ("parse_types",),
    "llamacpp.texts": ("read_texts",),
    "measurement": ("Measurement",),
    "plan": ("Plan",),
    "planning.frontier": ("Frontier",),
    "progress": ("Reporter",),
    "recipes.emit": ("emit",),
    "selector": ("Selector",),
    "sensitivity.estimate": ("SensitivityOptions",),
    "sensitivity.tensor_swap": ("ProbeOptions",),
    "sensitivity_table": ("SensitivityTable",),
    "solver.constraints": ("Constraints",),
    "tensor": ("Model",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            value = getattr(import_module(f"{__name__}.{module}"), _ALIASES.get(name, name))
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
