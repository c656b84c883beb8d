"""Sensitivity tables next to a model card: each once, those that others can use."""

from dataclasses import replace

from card_parts import MODEL, file_of, plan_of

from quantplan.evaluate.published_tables import published_tables
from quantplan.planning.kept_tables import keep_table, table_digest
from quantplan.sensitivity_table import SensitivityRow, SensitivityTable

TABLE = SensitivityTable(MODEL.digest, {name: SensitivityRow(name, {"Q4_K": 0.1}) for name in MODEL.by_name})


def file_with(name, table, **fields):
    return file_of(name, 1, plan=plan_of(made_from={"damage_table": table_digest(table)}, **fields))


def test_each_table_once_and_what_is_missing(tmp_path):
    other = replace(TABLE, backend="cpu")
    for table in (TABLE, other):
        keep_table(table, tmp_path)
    lost = replace(TABLE, backend="another")
    files = [
        file_with("a.gguf", TABLE),
        file_with("b.gguf", TABLE),
        file_with("c.gguf", other),
        file_with("d.gguf", lost),
    ]
    tables, missing = published_tables(files, tmp_path)
    assert [(table.name, table.table) for table in tables] == [
        ("model.sensitivity.json", TABLE),
        ("model-2.sensitivity.json", other),
    ]
    assert len(missing) == 1 and missing[0].startswith("d.gguf: the sensitivity table of the plan is no longer")


def test_tables_without_measured_scales_and_stock_quants_have_none(tmp_path):
    keep_table(TABLE, tmp_path)
    files = [file_with("a.gguf", TABLE, calibrated=False), file_of("b.gguf", 1, plan=plan_of())]
    assert published_tables(files, tmp_path) == ((), ())
