"""What an imatrix says about experts, and how errors are judged where it says little."""

from dataclasses import replace

import numpy as np
import pytest
from model_parts import imatrix_of, model_of

from quantplan.errors import ModelMismatch
from quantplan.imatrix import FEW_HITS, coverage, coverage_notes, foreign_notes, zero_sums

UP = "blk.0.ffn_up_exps.weight"
MEANS = np.array([[1.0, 4.0], [3.0, 2.0], [100.0, 100.0], [7.0, 7.0]])  # of four experts, two columns


def experts(hits, name=UP, means=MEANS):
    counts = np.array(hits)
    return imatrix_of({name: means * np.where(counts, counts, 1)[:, None] * (counts > 0)[:, None]}, {name: hits})


@pytest.fixture(scope="module")
def model():
    shapes = {UP: (2, 8, 4), "blk.0.attn_k_b.weight": (2, 8, 4), "blk.0.attn_q.weight": (2, 8)}
    return model_of(shapes)


def test_well_seen_experts_keep_their_own_means(model):
    judged = experts([10**6] * 4).error_weights(model.by_name[UP])
    assert judged == pytest.approx(MEANS, rel=3 * FEW_HITS / 1e4)


def test_an_expert_without_hits_takes_the_mean_of_the_others(model):
    judged = experts([10**7, 10**7, 0, 0]).error_weights(model.by_name[UP])
    assert judged[2:] == pytest.approx(np.array([[2.0, 3.0]] * 2), rel=1e-4)


def test_hits_decide_how_far_an_expert_is_shrunk(model):
    """At FEW_HITS its own means and those of all weigh the same; means are weighted by trust."""
    hits = [10**7, 10**7, FEW_HITS, 0]
    judged = experts(hits).error_weights(model.by_name[UP])
    common = (MEANS[0] + MEANS[1] + 0.5 * MEANS[2]) / 2.5
    assert judged[2] == pytest.approx((MEANS[2] + common) / 2, rel=1e-4)
    assert judged[3] == pytest.approx(common, rel=1e-4)
    one = experts([10**7, 10**7, 1, 0]).error_weights(model.by_name[UP])
    assert one[2].max() < judged[2].max() < 100


def test_the_encoder_gets_what_llama_quantize_uses(model):
    given = experts([5, 1, 3, 0]).quantize_weights(model.by_name[UP])
    assert given == pytest.approx(np.vstack([MEANS[:3], [[1, 1]]]))


@pytest.mark.parametrize("name", ["blk.0.attn_k_b.weight", "blk.0.attn_q.weight"])
def test_what_no_router_chooses_stays_bit_for_bit(model, name):
    """Heads that are stacked in one tensor see every token, as a plain matrix does."""
    tensor = model.by_name[name]
    imatrix = experts([3] * tensor.experts, name, MEANS[: tensor.experts] + 1 / 3)
    assert np.array_equal(imatrix.error_weights(tensor), imatrix.entries[name].mean_square())


def test_legacy_files_do_not_tell_hits(model):
    entry = experts([8] * 4).entries[UP]
    flat = replace(entry, sum2=entry.sum2.reshape(1, -1), counts=np.array([8]))
    legacy = replace(experts([8] * 4), entries={UP: flat}, legacy=True)
    assert np.allclose(legacy.error_weights(model.by_name[UP]), MEANS)
    assert coverage(legacy) == () and coverage_notes(legacy) == []
    assert ["legacy .dat form" in note for note in coverage_notes(legacy, model)] == [True]


def test_nothing_is_made_up_where_nobody_was_hit(model):
    assert experts([0] * 4).error_weights(model.by_name[UP]) is None


def test_coverage_counts_the_unseen_and_the_rare():
    (found,) = coverage(experts([0, 1, FEW_HITS - 1, FEW_HITS]))
    assert (found.tensor, found.experts, found.unseen, found.rare) == (UP, 4, 1, 2)


def test_notes_name_the_worst_tensor(model):
    assert coverage_notes(experts([FEW_HITS] * 4), model) == []
    unseen, rare = coverage_notes(experts([0, 0, 5, 900]), model)
    assert f"1 of 1 expert tensors have experts that no token reached, most {UP} (2 of 4)" in unseen
    assert f"fewer than {FEW_HITS} hits, most {UP} (1 of 4)" in rare


def test_experts_without_an_entry_are_told(model):
    (note,) = coverage_notes(imatrix_of({"blk.0.attn_q.weight": np.ones((1, 2))}), model)
    assert "no data for 1 of 1 expert tensors" in note


# --- whose it is


def test_entries_too_many_are_named_and_prove_nothing(model):
    """attn_kv_b of forks, which compute attn_k_b and attn_v_b from it."""
    sums = {"blk.0.attn_q.weight": np.ones((1, 2)), "blk.0.attn_k_b.weight": np.ones((4, 2))}
    extra = {"blk.0.attn_kv_b.weight": np.ones((1, 7))}
    imatrix = imatrix_of(sums | extra)
    imatrix.check_belongs_to(model)
    (note,) = foreign_notes(imatrix, model)
    assert "has 1 entries that are no tensors of model.gguf" in note and "blk.0.attn_kv_b.weight" in note
    assert foreign_notes(imatrix_of(sums), model) == []


@pytest.mark.parametrize(
    ("sums", "words"),
    [
        ({"blk.0.attn_q.weight": np.ones((1, 3))}, "3 values for blk.0.attn_q.weight"),
        ({"a": np.ones((1, 2)), "b": np.ones((1, 2)), "blk.0.attn_q.weight": np.ones((1, 2))}, "2 of 3 entries"),
        ({"a": np.ones((1, 2))}, "1 of 1 entries"),
        ({}, "no entries"),
    ],
)
def test_another_models_imatrix(model, sums, words):
    with pytest.raises(ModelMismatch, match=words):
        imatrix_of(sums).check_belongs_to(model)


# --- sums of zero, and what is not there

ZERO = "blk.0.attn_q.weight"


def with_zeros(model):
    """Tokens were counted for all, the sums of attn_q and of two of four experts are zero."""
    sums = {
        UP: MEANS * np.array([[1], [0], [1], [0]]),
        ZERO: np.zeros((1, 2)),
        "blk.1.attn_q.weight": np.array([[0, 4]]),
    }
    return imatrix_of(sums, {UP: [50] * 4, ZERO: [50], "blk.1.attn_q.weight": [50]})


def legacy_form(imatrix):
    entries = {
        name: replace(entry, sum2=entry.sum2.reshape(1, -1), counts=entry.counts[:1])
        for name, entry in imatrix.entries.items()
    }
    return replace(imatrix, entries=entries, legacy=True)


@pytest.mark.parametrize("form", [lambda imatrix: imatrix, legacy_form])
def test_sums_of_zero_are_no_data(model, form):
    imatrix = form(with_zeros(model))
    assert imatrix.quantize_weights(model.by_name[ZERO]) is None
    assert imatrix.error_weights(model.by_name[ZERO]) is None
    weights = imatrix.quantize_weights(model.by_name[UP])
    assert weights[[1, 3]].tolist() == [[1, 1], [1, 1]] and (weights[[0, 2]] > 0).all()
    judged = imatrix.error_weights(model.by_name[UP])
    assert (judged > 0).all() and judged[1] == pytest.approx(judged[3])


@pytest.mark.parametrize("form", [lambda imatrix: imatrix, legacy_form])
def test_llama_quantize_is_not_given_zeros(model, form):
    given = form(with_zeros(model)).with_data(model)
    assert set(given.entries) == {UP, "blk.1.attn_q.weight"}
    entry = given.entries[UP]
    assert entry.counts.tolist() == [50, 0, 50, 0] and entry.sum2.shape == (4, 2)
    sound = imatrix_of({ZERO: np.array([[0, 1]])})
    assert sound.with_data(model).entries[ZERO] is sound.entries[ZERO]


def test_zeros_are_named(model):
    assert zero_sums(with_zeros(model)) == {UP: 2, ZERO: 1}
    assert zero_sums(legacy_form(with_zeros(model)), model) == {UP: 2, ZERO: 1}
    for imatrix in (with_zeros(model), legacy_form(with_zeros(model))):
        assert f"all sums of {UP}, {ZERO} are zero" in coverage_notes(imatrix, model)[0]


def test_matrices_without_an_entry_are_told():
    """A merge with the imatrix of the original, which has fewer blocks."""
    merged = model_of({f"blk.{block}.{role}.weight": (2, 8) for block in range(6) for role in ("attn_q", "ffn_up")})
    original = imatrix_of({f"blk.{block}.attn_q.weight": np.ones((1, 2)) for block in range(4)})
    (note,) = coverage_notes(original, merged)
    assert "no data for 2 of 6 matrices in blocks (blk.4.attn_q.weight; blocks 4-5)" in note
