"""Functions of numbers and lists."""

import math
from itertools import accumulate
from typing import Any

from quantplan.evaluate.suites.generated.draw import Draw
from quantplan.evaluate.suites.generated.program_item import program_item


def _numbers(draw: Draw, count: int, low: int = -20, high: int = 60) -> list[int]:
    return [draw.whole(low, high) for _ in range(count)]


def _lists(draw: Draw, low: int = -20) -> list[tuple[list[int]]]:
    return [(_numbers(draw, size, low),) for size in (5, 8, 3)]


# --- numbers


def _multiples(draw: Draw) -> dict[str, Any]:
    a, b = draw.one(((3, 5), (4, 7), (3, 8), (5, 6), (2, 9)))
    what = f"returns the sum of all positive whole numbers below n that are divisible by {a} or by {b}."
    return program_item(
        "sum_multiples(n)", what, lambda n: sum(i for i in range(n) if i % a == 0 or i % b == 0), [(10,), (50,), (1,)]
    )


def _digits(draw: Draw) -> dict[str, Any]:
    what = "returns the sum of the decimal digits of a whole number n, which may be negative."
    return program_item(
        "digit_sum(n)", what, lambda n: sum(map(int, str(abs(n)))), [(draw.whole(100, 99999),), (0,), (-457,)]
    )


def _sequence(draw: Draw) -> dict[str, Any]:
    a, b = draw.whole(0, 4), draw.whole(1, 6)

    def solution(n: int) -> int:
        x, y = a, b
        for _ in range(n):
            x, y = y, x + y
        return x

    what = f"returns term number n of the sequence that begins with {a} and {b}, where every further term is the sum of the two "
    return program_item(
        "term(n)", f"{what}before it. Term number 0 is {a}.", solution, [(0,), (1,), (2,), (draw.whole(6, 12),)]
    )


def _primes(draw: Draw) -> dict[str, Any]:
    def solution(n: int) -> list[int]:
        return [i for i in range(2, n) if all(i % j for j in range(2, math.isqrt(i) + 1))]

    return program_item(
        "primes(n)", "returns a list of all prime numbers below n.", solution, [(2,), (3,), (draw.whole(20, 60),)]
    )


def _base(draw: Draw) -> dict[str, Any]:
    base = draw.one((2, 3, 5, 7, 8))

    def solution(n: int) -> str:
        digits = ""
        while n:
            digits, n = str(n % base) + digits, n // base
        return digits or "0"

    what = f"returns a whole number n, which is not negative, as a string of its digits in base {base}."
    return program_item("to_base(n)", what, solution, [(0,), (draw.whole(5, 60),), (draw.whole(100, 900),)])


def _divisor(draw: Draw) -> dict[str, Any]:
    a, b, factor = draw.whole(2, 12), draw.whole(2, 12), draw.whole(2, 9)
    what = "returns the greatest common divisor of two positive whole numbers."
    return program_item("common_divisor(a, b)", what, math.gcd, [(a * factor, b * factor), (7, 13), (a, a)])


def _steps(draw: Draw) -> dict[str, Any]:
    def solution(n: int) -> int:
        steps = 0
        while n != 1:
            n, steps = (n // 2 if n % 2 == 0 else 3 * n + 1), steps + 1
        return steps

    what = "counts the steps until n becomes 1, where each step halves an even n and turns an odd n into 3 * n + 1."
    return program_item("count_steps(n)", what, solution, [(1,), (8,), (draw.whole(5, 30),)])


def _labels(draw: Draw) -> dict[str, Any]:
    a, b = draw.one(((3, 5), (2, 7), (4, 5), (3, 7)))
    first, second = draw.some(("Ping", "Pong", "Tick", "Tock", "Zig", "Zag"), 2)

    def solution(n: int) -> str:
        return (first * (n % a == 0) + second * (n % b == 0)) or str(n)

    what = f'returns "{first}" for numbers divisible by {a}, "{second}" for those divisible by {b}, "{first}{second}" for those '
    what += "divisible by both, and the number itself as a string for all others."
    return program_item("label(n)", what, solution, [(a,), (b,), (a * b,), (1,)])


# --- lists


def _range(draw: Draw) -> dict[str, Any]:
    low = draw.whole(0, 10)
    high = low + draw.whole(10, 25)
    what = f"counts how many numbers in a list are at least {low} and at most {high}."
    return program_item(
        "count_between(numbers)", what, lambda numbers: sum(low <= n <= high for n in numbers), [*_lists(draw), ([],)]
    )


def _spread(draw: Draw) -> dict[str, Any]:
    what = "returns the difference between the largest and the smallest number in a list, and 0 for an empty list."
    return program_item(
        "spread(numbers)", what, lambda numbers: max(numbers) - min(numbers) if numbers else 0, [*_lists(draw), ([],)]
    )


def _totals(draw: Draw) -> dict[str, Any]:
    what = "returns a list of the running totals of a list of numbers: [1, 2, 3] gives [1, 3, 6]."
    return program_item(
        "running_totals(numbers)", what, lambda numbers: list(accumulate(numbers)), [*_lists(draw), ([],)]
    )


def _second(draw: Draw) -> dict[str, Any]:
    what = "returns the second largest of the different numbers in a list, or None where there are fewer than two."

    def solution(numbers: list[int]) -> int | None:
        different = sorted(set(numbers))
        return different[-2] if len(different) > 1 else None

    return program_item("second_largest(numbers)", what, solution, [*_lists(draw), ([4, 4],), ([9, 9, 3],)])


def _different(draw: Draw) -> dict[str, Any]:
    what = "returns a list without repetitions: each value once, where it stands first."
    cases = [([draw.whole(1, 4) for _ in range(8)],), ([],), (["b", "a", "b"],)]
    return program_item("without_repetitions(values)", what, lambda values: list(dict.fromkeys(values)), cases)


def _rotated(draw: Draw) -> dict[str, Any]:
    what = "returns a list turned to the left by k places: [1, 2, 3, 4] with k = 1 gives [2, 3, 4, 1]. k may exceed its length."

    def solution(values: list[int], k: int) -> list[int]:
        return values[k % len(values) :] + values[: k % len(values)] if values else []

    return program_item(
        "rotate(values, k)", what, solution, [([1, 2, 3, 4, 5], draw.whole(1, 4)), ([1, 2, 3], 7), ([], 2)]
    )


def _parts(draw: Draw) -> dict[str, Any]:
    size = draw.whole(2, 4)
    what = f"cuts a list into lists of {size} values each, in order; the last one may be shorter."

    def solution(values: list[int]) -> list[list[int]]:
        return [values[start : start + size] for start in range(0, len(values), size)]

    return program_item("cut(values)", what, solution, [(list(range(draw.whole(7, 11))),), ([],), ([1],)])


def _flat(draw: Draw) -> dict[str, Any]:
    what = "joins a list of lists into one list: [[1], [2, 3]] gives [1, 2, 3]."
    cases = [([_numbers(draw, 2), _numbers(draw, 3), []],), ([],)]
    return program_item("join_lists(lists)", what, lambda lists: [value for values in lists for value in values], cases)


def _merged(draw: Draw) -> dict[str, Any]:
    what = "merges two sorted lists of numbers into one sorted list."
    cases = [(sorted(_numbers(draw, 4)), sorted(_numbers(draw, 3))), ([], [1]), ([], [])]
    return program_item("merge(a, b)", what, lambda a, b: sorted(a + b), cases)


def _taking_turns(draw: Draw) -> dict[str, Any]:
    what = "takes values from two lists of the same length in turns: [1, 2] and [3, 4] give [1, 3, 2, 4]."
    cases = [(_numbers(draw, 3), _numbers(draw, 3)), ([], [])]
    return program_item(
        "in_turns(a, b)", what, lambda a, b: [value for pair in zip(a, b, strict=True) for value in pair], cases
    )


def _columns(draw: Draw) -> dict[str, Any]:
    what = "turns a list of rows, all of the same length, into the list of its columns: [[1, 2], [3, 4]] gives [[1, 3], [2, 4]]."
    cases = [([_numbers(draw, 3), _numbers(draw, 3)],), ([[1], [2], [3]],)]
    return program_item("columns(rows)", what, lambda rows: [list(column) for column in zip(*rows, strict=True)], cases)


def _diagonal(draw: Draw) -> dict[str, Any]:
    what = "returns the sum of the numbers on the main diagonal of a square matrix, which is a list of rows."
    cases = [([_numbers(draw, 3) for _ in range(3)],), ([[5]],)]
    return program_item("diagonal_sum(matrix)", what, lambda matrix: sum(row[i] for i, row in enumerate(matrix)), cases)


def _moving(draw: Draw) -> dict[str, Any]:
    size = draw.whole(2, 4)
    what = f"returns a list of the sums of every {size} neighbouring numbers in a list, from left to right; an empty list where "

    def solution(numbers: list[int]) -> list[int]:
        return [sum(numbers[start : start + size]) for start in range(len(numbers) - size + 1)]

    return program_item(
        "neighbour_sums(numbers)", f"{what}there are fewer than {size}.", solution, [*_lists(draw, 0), ([],)]
    )


ON_NUMBERS = (
    _multiples,
    _spread,
    _base,
    _different,
    _digits,
    _parts,
    _labels,
    _totals,
    _sequence,
    _second,
    _range,
    _rotated,
    _primes,
    _merged,
    _moving,
    _divisor,
    _flat,
    _columns,
    _steps,
    _taking_turns,
    _diagonal,
)
