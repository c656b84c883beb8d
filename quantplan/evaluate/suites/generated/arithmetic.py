"""Sums whose answer is one number."""

from fractions import Fraction
from typing import Any

from quantplan.evaluate.suites.generated.draw import Draw

_GOODS = ("pens", "notebooks", "lamps", "chairs", "tickets", "mugs", "books", "plants", "towels", "batteries")


def _item(question: str, answer: object) -> dict[str, Any]:
    return {"text": question, "answer": str(answer)}


def _sum(draw: Draw) -> dict[str, Any]:
    a, b = draw.whole(120, 9999), draw.whole(120, 9999)
    return _item(f"What is {a} + {b}?", a + b)


def _difference(draw: Draw) -> dict[str, Any]:
    b = draw.whole(100, 4000)
    a = b + draw.whole(30, 5000)
    return _item(f"What is {a} - {b}?", a - b)


def _product(draw: Draw) -> dict[str, Any]:
    a, b = draw.whole(12, 99), draw.whole(3, 60)
    return _item(f"What is {a} x {b}?", a * b)


def _quotient(draw: Draw) -> dict[str, Any]:
    b, answer = draw.whole(3, 25), draw.whole(11, 140)
    return _item(f"What is {b * answer} divided by {b}?", answer)


def _remainder(draw: Draw) -> dict[str, Any]:
    b, whole = draw.whole(4, 19), draw.whole(5, 60)
    rest = draw.whole(1, b - 1)
    return _item(f"What is the remainder when {b * whole + rest} is divided by {b}?", rest)


def _percentage(draw: Draw) -> dict[str, Any]:
    percent, hundreds = draw.one((5, 10, 15, 20, 25, 30, 40, 60, 75)), draw.whole(1, 30)
    return _item(f"What is {percent} percent of {hundreds * 20}?", _plain(Fraction(percent * hundreds, 5)))


def _order(draw: Draw) -> dict[str, Any]:
    a, b, c = draw.whole(5, 80), draw.whole(3, 15), draw.whole(3, 15)
    return _item(f"What is {a} + {b} x {c}?", a + b * c)


def _brackets(draw: Draw) -> dict[str, Any]:
    a, b, c = draw.whole(5, 40), draw.whole(5, 40), draw.whole(3, 12)
    return _item(f"What is ({a} + {b}) x {c}?", (a + b) * c)


def _shopping(draw: Draw) -> dict[str, Any]:
    first, second = draw.some(_GOODS, 2)
    price, other, count, more = draw.whole(2, 15), draw.whole(4, 30), draw.whole(2, 9), draw.whole(2, 6)
    question = f"One of the {first} costs {price} euros and one of the {second} costs {other} euros. "
    question += f"How many euros do {count} {first} and {more} {second} cost together?"
    return _item(question, price * count + other * more)


def _minutes(draw: Draw) -> dict[str, Any]:
    start, length = draw.whole(6 * 60, 15 * 60), draw.whole(35, 420)
    first, last = (f"{time // 60:02d}:{time % 60:02d}" for time in (start, start + length))
    return _item(f"How many minutes are there from {first} to {last} on the same day?", length)


def _mean(draw: Draw) -> dict[str, Any]:
    mean, apart, further = draw.whole(20, 90), draw.whole(1, 9), draw.whole(10, 19)
    numbers = draw.some([mean - apart, mean + apart, mean - further, mean + further], 4)
    return _item(f"What is the average of {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}?", mean)


def _decimal(draw: Draw) -> dict[str, Any]:
    below = draw.one((4, 5, 8, 10, 20, 25, 40))
    above = draw.one([number for number in range(1, below) if Fraction(number, below).denominator == below])
    return _item(f"What is {above}/{below} as a decimal number?", _plain(Fraction(above, below)))


def _plain(value: Fraction) -> str:
    """Without an end that goes on: the denominators here are those of decimal numbers."""
    return f"{float(value):.10f}".rstrip("0").rstrip(".")


SUMS = (
    _sum,
    _difference,
    _product,
    _quotient,
    _remainder,
    _percentage,
    _order,
    _brackets,
    _shopping,
    _minutes,
    _mean,
    _decimal,
)
