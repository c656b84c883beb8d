from pathlib import Path

import pytest
from model_parts import model_of

from quantplan.errors import BadFile
from quantplan.recipes.import_plan import import_file

BY_CATEGORY = "name mine\ndefault Q4_K\n\n[attn_v]\n  more_bits : Q6_K\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BY_CATEGORY, "recipe by tensor category .*21070.* not supported"),
        ('{"format": "quantplan-plan"}', "is a quantplan-plan file"),
        ("{}", "is some other JSON"),
    ],
)
def test_what_is_not_imported_is_named(tmp_path: Path, content, message):
    (tmp_path / "file").write_text(content)
    with pytest.raises(BadFile, match=message):
        import_file(tmp_path / "file", model_of({"blk.0.attn_v.weight": (256, 8)}))
