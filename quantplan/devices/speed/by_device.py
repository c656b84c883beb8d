"""Speeds of a model whose tensors live on two devices: each product at the speed of the device that its tensor is on."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from quantplan.devices.memory import Placement
from quantplan.devices.speed.matmul import GPU, devices_of_type
from quantplan.devices.speed.measure import SpeedOptions, speed_table
from quantplan.devices.speed.table import SpeedTable, products
from quantplan.errors import BadUsage
from quantplan.llamacpp.quantize import quantizable
from quantplan.progress import SILENT, Reporter
from quantplan.quant_type import QuantType
from quantplan.tensor import Model


def placed_speeds(
    model: Model,
    types: Iterable[QuantType],
    at: Placement,
    options: SpeedOptions,
    cache_folder: Path,
    report: Reporter = SILENT,
) -> SpeedTable:
    """The speeds of a model placed so, whatever ``options.execution.gpu_layers`` says; raises as ``speed_table``.

    BadUsage where a tensor belongs on a GPU and this machine has none whose speed could be measured.
    """
    types, on_cpu = tuple(types), on_processor(model, at)
    layers = max(options.execution.gpu_layers, model.blocks + 1)
    here, offloaded = (
        replace(options, execution=replace(options.execution, gpu_layers=count)) for count in (0, layers)
    )
    if not check_measurable(model, at):
        return speed_table(model, types, here, cache_folder, report)
    gpu = speed_table(model, types, offloaded, cache_folder, report)
    return shared(gpu, speed_table(model, types, here, cache_folder, report), on_cpu) if on_cpu else gpu


def check_measurable(model: Model, at: Placement) -> bool:
    """Whether a tensor belongs on a GPU; BadUsage where one does and this machine has no GPU."""
    on_gpu = bool(products(model, quantizable(model)).keys() - on_processor(model, at))
    if on_gpu and not devices_of_type(GPU):
        raise BadUsage(
            "--min-tps with --vram: tensors go to the GPU, but the installed llama.cpp sees no GPU whose speed could be "
            "measured; leave one of the two out, or plan on the machine that will run the file"
        )
    return on_gpu


def on_processor(model: Model, at: Placement) -> frozenset[str]:
    """The tensors whose products the processor computes."""
    return frozenset(products(model, quantizable(model))) - at.gpu


def shared(gpu: SpeedTable, cpu: SpeedTable, on_cpu: frozenset[str]) -> SpeedTable:
    """``gpu``'s table with the tensors ``on_cpu`` at the speeds of ``cpu``. Attention, norms and the rest run on the GPU; what
    passes between the devices is not counted.
    """
    placed = {name: replace(product, on_cpu=name in on_cpu) for name, product in gpu.products.items()}
    speeds = (*gpu.speeds, *(replace(speed, on_cpu=True) for speed in cpu.speeds))
    return replace(gpu, products=placed, speeds=speeds)
