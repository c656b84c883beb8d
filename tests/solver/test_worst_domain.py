"""The least of the largest damage over several texts, against every plan of small problems, and its proof on large ones."""

from dataclasses import replace

import numpy as np
import pytest
from small_problems import feasible_with_resource, plans, random_problem

from quantplan.errors import BadUsage, BudgetImpossible
from quantplan.solver.objective import minimise
from quantplan.solver.planner import WORST_DOMAIN_GAP
from quantplan.solver.problem import Chain, Choice, Distinct, Group, Problem
from quantplan.solver.worst_domain import WORST_DOMAIN, _by_weights, _next_weights


def with_texts(task, seed, texts=3):
    """Damages of their own on each text, some of them equal."""
    rng = np.random.default_rng(seed)

    def choice(each):
        factors = rng.choice([0.5, 1.0, 1.0, rng.lognormal(0, 0.7)], texts)
        return replace(each, domains=tuple((each.damage * factors).tolist()))

    groups = tuple(Group(group.name, tuple(map(choice, group.choices))) for group in task.groups)
    return replace(task, groups=groups)


def least(task):
    return min(max(task.domain_damages(plan)) for plan in plans(task))


def check(task):
    best = minimise(task, WORST_DOMAIN)
    assert task.fits(best.choices)
    assert best.objective == pytest.approx(max(task.domain_damages(best.choices)), rel=1e-12)
    assert best.objective == pytest.approx(least(task), rel=1e-5, abs=1e-12)
    assert best.bound <= least(task) * (1 + 1e-9) + 1e-12
    assert (best.outcome.minimised, best.outcome.status) == (WORST_DOMAIN, "optimal")


@pytest.mark.parametrize("seed", range(40))
def test_against_every_plan(seed):
    check(with_texts(random_problem(seed), seed, texts=1 + seed % 4))


@pytest.mark.parametrize("seed", range(10))
def test_within_further_limits(seed):
    check(with_texts(feasible_with_resource(seed), seed))


@pytest.mark.parametrize("seed", range(10))
def test_with_few_types(seed):
    task = random_problem(seed)
    task = replace(with_texts(task, seed), distinct=Distinct(2, tuple(range(len(task.groups)))))
    if plans(task):
        check(task)


@pytest.mark.parametrize("course", ["rising", "valley"])
@pytest.mark.parametrize("seed", range(5))
def test_with_a_course_over_the_groups(seed, course):
    task = random_problem(seed)
    ranks = tuple(tuple(range(len(group.choices))) for group in task.groups)
    task = replace(with_texts(task, seed), chains=(Chain(course, tuple(range(len(task.groups))), ranks),))
    if plans(task):
        check(task)


def large(groups, texts, seed=0):
    """As of a model: types of 2 to 8 bits, damages that fall with bits, and tensors that matter to other texts."""
    rng = np.random.default_rng(seed)
    bits = np.array([2.6, 3.4, 4.5, 5.5, 6.6, 8.5])
    made = []
    for number in range(groups):
        weights = int(rng.integers(1, 9)) << 20
        scale = rng.lognormal(-9, 1) * rng.lognormal(0, 0.8, texts)
        choices = tuple(
            Choice(f"Q{b:.0f}", int(weights * b / 8), float(scale.mean() * 4.0**-b), tuple((scale * 4.0**-b).tolist()))
            for b in bits
        )
        made.append(Group(f"tensor {number}", choices))
    loose = Problem(tuple(made), 0)
    return replace(loose, budget_bytes=(loose.smallest_bytes + loose.largest_bytes) // 2)


def test_a_model_s_size_is_proven():
    task = large(120, 5)
    best, mean = minimise(task, WORST_DOMAIN, WORST_DOMAIN_GAP), minimise(task, "sum")
    assert best.outcome.status == "optimal" and 0 <= best.outcome.gap <= WORST_DOMAIN_GAP
    assert best.objective < 0.98 * max(task.domain_damages(mean.choices)), "the best plan of the mean is worse there"
    assert task.damage(best.choices) > mean.objective


def test_no_weights_of_the_texts_prove_more():
    """The bound by weights lies below every plan, and at the best weights two texts are about as bad."""
    task = large(60, 3, seed=1)
    found = _by_weights(task, 1e-6, float("inf"))
    assert found.bound <= found.largest
    assert found.largest / found.bound - 1 < 1e-2
    damages = np.sort(found.best[1])
    assert damages[-2] > 0.9 * damages[-1]
    weights, value = _next_weights([np.array([1.0, 0.0]), np.array([0.0, 1.0])])
    assert weights == pytest.approx([0.5, 0.5]) and value == pytest.approx(0.5)


def test_one_text_is_the_sum():
    task = large(80, 1)
    assert minimise(task, WORST_DOMAIN).objective == pytest.approx(minimise(task, "sum").objective, rel=1e-6)


def test_what_cannot_be():
    with pytest.raises(
        BadUsage, match=r"--objective worst-domain needs sensitivities of several texts.*--calibration FOLDER"
    ):
        minimise(random_problem(1), WORST_DOMAIN)
    task = with_texts(random_problem(2), 2)
    with pytest.raises(BudgetImpossible):
        minimise(replace(task, budget_bytes=task.smallest_bytes - 1), WORST_DOMAIN)
