"""Damaged files of every kind are read or refused in one sentence: no other exception, no hang, no huge allocation."""

import pytest
from fuzz_inputs import KINDS, outcome
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = 60  # of each kind: 1,700 files in all; benchmarks/fuzz.py tries more


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_damaged_files_are_read_or_refused(kind, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    outcomes = []

    @settings(
        max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.randoms(use_true_random=False))
    def damage_one(random):
        outcomes.append(outcome(kind, kind.input(random), folder))

    damage_one()
    assert len(outcomes) >= EXAMPLES // 2
