"""Where the sensitivities of a plan come from: a probe, the weights, a prior, or the file of a table."""

from pathlib import Path

from quantplan.errors import BadUsage
from quantplan.imatrix import Imatrix
from quantplan.llamacpp.encodable_types import parse_writable
from quantplan.llamacpp.texts import read_texts
from quantplan.planning.kept_tables import read_table
from quantplan.planning.request import quantizable
from quantplan.planning.siblings import sibling_of, with_check, with_own_rounding
from quantplan.progress import SILENT, Reporter
from quantplan.project import SOURCES
from quantplan.records.cache import user_cache
from quantplan.sensitivity.estimate import SensitivityOptions, price
from quantplan.sensitivity.rows import prior_table
from quantplan.sensitivity.sibling import HOLDS, check_sibling
from quantplan.sensitivity.tensor_swap import ProbeOptions
from quantplan.sensitivity_table import SensitivityTable
from quantplan.tensor import Model
from quantplan.text import Text

DEFAULT_CTX = 512  # tokens of a chunk, as in llama-perplexity


def sensitivities(
    model: Model,
    source: str | Path = "probe",
    *,
    calibration: Text | Path | None = None,
    imatrix: Imatrix | None = None,
    options: SensitivityOptions | None = None,
    cache: Path | None = None,
    report: Reporter = SILENT,
) -> SensitivityTable:
    """The expected KLD of every (tensor, type) that ``options`` (default: all types) name.

    ``source``: "probe" measures on ``calibration`` (the text itself, or the path of a file or folder), "weights" reads the
    weights only, "prior" not even those; anything else is the file of a table. What was measured before comes from ``cache``
    (default: the user's cache folder). Raises BadFile, BadUsage, ModelMismatch, NothingSelected, TextTooShort, WorkersLost.
    """
    if source not in SOURCES:
        table = read_table(source, model, report)
        if sibling_of(table):
            table = _of_sibling(
                table,
                model,
                _text(calibration, model, report),
                imatrix,
                _options(options),
                cache or user_cache(),
                report,
            )
        return table if options is None or options.compensate else table.with_stock_rounding()
    tensors = quantizable(model)
    options = _options(options)
    if source == "prior":
        return prior_table(model, tensors, options.types, imatrix)
    text = _text(calibration, model, report) if source == "probe" else None
    if source == "probe" and text is None:
        raise BadUsage(
            "no calibration text: give --calibration FILE to probe, or --sensitivity weights to plan without a probe"
        )
    estimated = price(model, tensors, imatrix, text, options, cache or user_cache(), report)
    if estimated.probe and estimated.probe.overhead is not None:
        report.say(f"probed {len(estimated.probe.scales)} tensors in {estimated.probe.seconds:.0f} s")
    return estimated.table


def _text(calibration: Text | Path | None, model: Model, report: Reporter) -> Text | None:
    """The text itself, read where its path is given."""
    return read_texts([calibration], model, report=report) if isinstance(calibration, Path) else calibration


def _options(options: SensitivityOptions | None) -> SensitivityOptions:
    return options or SensitivityOptions(parse_writable("all"), ProbeOptions(DEFAULT_CTX))


def _of_sibling(
    table: SensitivityTable,
    model: Model,
    text: Text | None,
    imatrix: Imatrix | None,
    options: SensitivityOptions,
    cache: Path,
    report: Reporter,
) -> SensitivityTable:
    """The table of another model, checked by some probes of this one where there is a text for them."""
    other = sibling_of(table)
    assert other is not None
    measured_on = f"the sensitivities were measured on {other.model}, a model of the same names and shapes"
    if text is None or model.header_only or not options.sibling_probes:
        why = "there are no weights to probe" if model.header_only else "give --calibration TEXT and --sibling-probes 8"
        report.warn(f"{measured_on}, and not checked on this one: {why}")
    else:
        how = (options, options.sibling_probes, cache, report)
        check = check_sibling(table, model, imatrix, text, *how)
        tell = report.say if check.verdict == HOLDS else report.warn
        tell(f"{measured_on}; {check.in_words()}")
        table = with_check(table, check)
    return with_own_rounding(table, model, text, options.probe)
