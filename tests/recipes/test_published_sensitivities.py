"""Published KLDs as they are found: CSVs of GGUF-Tool-Suite, and a JSON of both parts."""

import json

import pytest

from quantplan.errors import BadFile, BadUsage, NothingSelected
from quantplan.recipes.published_sensitivities import looks_like_sensitivities, read_published

TABLE = """QTYPE,blk.0.attn_k_b.weight,blk.0.attn_v_b.weight,blk.0.ffn_down.weight,token_embd.weight
iq1_bn,9.0,9.1,8.5,15.846253
iq2_k,0.004,0.004,0.003,
iq1_kt,0.001662,0.001662,0.003843,0.750841
"""
CURVE = "QTYPE,group0\nbf16,0\niq1_kt,2.76\nq2_K,0.9\nq8_0,0.001441\niq4_k,404\n"


@pytest.fixture
def files(tmp_path):
    def write(**texts):
        paths = []
        for name, text in texts.items():
            paths.append(tmp_path / name)
            paths[-1].write_text(text)
        return paths

    return write


def test_a_csv_with_its_curve(files):
    table, curve, groups = files(t=TABLE, c=CURVE, g="group0:^blk\\.0\\.attn_(k_b|v_b)\\.weight$\ngroup1:ffn_down\n")
    found = read_published(table, curve, groups)
    assert found.degraded_to == "iq1_kt"  # the lowest number that is no BitNet type
    assert found.sensitivity["token_embd.weight"] == 0.750841
    assert found.curve == {"bf16": 0.0, "iq1_kt": 2.76, "q2_K": 0.9, "q8_0": 0.001441}  # 404: not found
    assert found.together == (("blk.0.attn_k_b.weight", "blk.0.attn_v_b.weight"),)
    other = read_published(table, curve, row="iq2_k")
    assert other.sensitivity["blk.0.ffn_down.weight"] == 0.003
    assert other.unmeasured == ("token_embd.weight",)


@pytest.mark.parametrize(("mark", "point"), [(";", ","), (";", "."), ("\t", "."), ("\t", ",")])
def test_a_table_of_a_spreadsheet(files, mark, point):
    def written(text):
        return text.replace(",", mark).replace(".", point).replace(f"attn{point}", "attn.")

    table, curve = files(
        t=written(TABLE).replace(f"{point}weight", ".weight").replace(f"blk{point}0{point}", "blk.0."), c=written(CURVE)
    )
    assert read_published(table, curve) == read_published(*files(t=TABLE, c=CURVE))


def test_a_json_of_both(files):
    content = {
        "qtypes": ["q2_K", "iq2_xxs", "q8_0"],
        "curve": {"q2_K": 0.9, "iq2_xxs": 1.0, "q8_0": 0.001},
        "ref_qtype": "iq1_kt",
        "groups": [{"shape": [256, 64], "stored": {"iq2_xxs": "q2_K", "q8_0": "q8_0"}}, {"shape": [256, 8]}],
        "tensors": [["token_embd.weight", 0, 0.75], ["blk.0.attn_v.weight", 1, 0.1], ["blk.0.attn_k.weight", 1, 0.1]],
        "unmeasured": [["blk.1.attn_v.weight", 1]],
        "measured_together": [[1, 2]],
        "source": {"repo": "a/b", "n": 3},
    }
    (path,) = files(j=json.dumps(content))
    found = read_published(path)
    assert found.labels == ("q2_K", "iq2_xxs", "q8_0")
    assert found.otherwise["token_embd.weight"] == {"iq2_xxs"}
    assert found.together == (("blk.0.attn_v.weight", "blk.0.attn_k.weight"),)
    assert found.shapes["blk.1.attn_v.weight"] == (256, 8)
    assert found.unmeasured == ("blk.1.attn_v.weight",)
    assert found.source == {"file": "j", "repo": "a/b"}
    assert looks_like_sensitivities(json.dumps(content)) and looks_like_sensitivities(TABLE)
    assert not looks_like_sensitivities('{"format": "quantplan-plan", "tensors": []}')


@pytest.mark.parametrize(
    ("table", "curve", "error", "words"),
    [
        (TABLE, None, BadUsage, "--curve group0/kld_results.csv"),
        (TABLE, TABLE, BadFile, "several columns"),
        (TABLE.replace("0.003843", "+12.3%"), CURVE, BadFile, r"blk.0.ffn_down.weight as iq1_kt.*percent"),
        (TABLE.replace("0.003843", "-0.1"), CURVE, BadFile, "not a KLD"),
        (TABLE.replace("0.003843", "x"), CURVE, BadFile, "'x', which is not a KLD"),
        (TABLE.replace(",0.750841", ""), CURVE, BadFile, "line 4 has 4 values, the header 5"),
        (TABLE.replace("_v_b", "_k_b"), CURVE, BadFile, "attn_k_b.weight twice"),
        (f"{TABLE}iq2_k,1,1,1,1\n", CURVE, BadFile, "two rows iq2_k"),
        ("QTYPE,a,b\nq2_K,0.1,0.2\nq6_K,0.3,0.9\n", CURVE, BadFile, "the curve is 1.2 at q6_K"),
        (TABLE.replace("QTYPE", "TYPE"), CURVE, BadFile, "begin with QTYPE"),
        ("QTYPE,a\niq1_bn,1\nbf16_bn,1", CURVE, NothingSelected, "no row of an ordinary type; rows: iq1_bn"),
        ('{"curve": {}, "tensors": [["a", 0]], "groups": []}', None, BadFile, "docs/formats.md"),
    ],
)
def test_bad_files(files, table, curve, error, words):
    paths = files(t=table, **({"c": curve} if curve else {}))
    with pytest.raises(error, match=words):
        read_published(*paths)


def test_a_row_that_is_not_there(files):
    with pytest.raises(NothingSelected, match=r"no row q9; rows: iq1_bn, iq2_k, iq1_kt"):
        read_published(*files(t=TABLE, c=CURVE), row="q9")
