"""From an answer to a credit between 0 and 1, one function for each kind of part. Formulas and examples: docs/suites.md."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from quantplan.evaluate.suites import suite
from quantplan.evaluate.suites.answers import Reply, finds, normal, numbers, repeated, words
from quantplan.evaluate.suites.checks import failures
from quantplan.evaluate.suites.json_schema import same_value, violations
from quantplan.evaluate.suites.loops import loops
from quantplan.evaluate.suites.programs.answer_code import code_in
from quantplan.evaluate.suites.programs.run_program import run_program
from quantplan.evaluate.suites.suite import SuiteItem, SuitePart
from quantplan.evaluate.suites.tool_calls import calls_in
from quantplan.llamacpp.chat import CLOSED, OPENED

COMMON_SHARE = 0.25  # of common words from which a text counts as one of the language; English prose has 0.4 to 0.5
PLAIN_SHARE = 0.9  # of letters, spaces and usual punctuation from which it counts as prose
COHERENCE_RUN, REPETITION_RUN = 3, 4  # words of a run that must not be repeated
SCALE = 10  # of intensities
_PLAIN = re.compile(r"[^\W\d_]|[\s.,;:!?'\"’“”()-]")
_SCALE_NAMED = re.compile(r"\b0\s*(?:-|–|to)\s*10\b")  # "anger (0-10): 7" is about 7
_FINALLY = re.compile(r"\b(?:answer|therefore|thus|hence|so)\b")


@dataclass(frozen=True)
class Credit:
    """``remark``: what is missing where the credit is not 1."""

    value: float
    remark: str = ""


def facts(part: SuitePart, item: SuiteItem, reply: Reply) -> Credit:
    """1 where an accepted answer is said and no rejected one."""
    text = normal(reply.said)
    rejected = next((phrase for phrase in item.reject if finds(phrase, text)), None)
    if rejected is not None:
        return Credit(0.0, f"says {rejected}")
    if any(finds(phrase, text) for phrase in item.accept):
        return Credit(1.0)
    return Credit(0.0, f"no {' or '.join(item.accept)}" if text else "no answer")


def tools(part: SuitePart, item: SuiteItem, reply: Reply) -> Credit:
    """1 where exactly the calls are made that are needed, each with right arguments that the schema allows."""
    read = calls_in(reply.said, item.tools)
    if read.broken:
        return Credit(0.0, "a call that is not JSON")
    if not item.calls:
        return Credit(float(not read.calls), f"calls {read.calls[0][0]}, no tool is needed" if read.calls else "")
    if not read.calls:
        return Credit(0.0, "no call")
    missing = [mark for mark in reply.call_marks if mark not in reply.said]
    if missing:
        return Credit(0.0, f"a call without {missing[0]}")
    return _calls(item, list(read.calls))


def _calls(item: SuiteItem, made: list[tuple[str, object]]) -> Credit:
    schemas = {tool.name: tool.parameters for tool in item.tools}
    for name, arguments in made:
        if name not in schemas:
            return Credit(0.0, f"calls {name}, which is not offered")
        if wrong := violations(arguments, schemas[name]):
            return Credit(0.0, f"{name}: {wrong[0]}")
    for call in item.calls:
        schema, arguments = json.loads(schemas[call.name]), json.loads(call.arguments)
        right = [each for each in made if each[0] == call.name and same_value(each[1], arguments, schema, _same_text)]
        if not right:
            return Credit(0.0, f"no {call.name} with {call.arguments}")
        made.remove(right[0])
    return Credit(0.0, f"calls {made[0][0]} once more") if made else Credit(1.0)


def _same_text(one: str, other: str) -> bool:
    return normal(one) == normal(other)


def instructions(part: SuitePart, item: SuiteItem, reply: Reply) -> Credit:
    """1 where the answer ends and all checks hold, else 0."""
    assert item.checks is not None
    failed = [*([] if reply.ended else ["does not end"]), *failures(reply.said, item.checks)]
    return Credit(0.0, "; ".join(failed)) if failed else Credit(1.0)


def code(part: SuitePart, item: SuiteItem, reply: Reply) -> Credit:
    """1 where the program of the answer runs within its limits and all tests are true."""
    program = code_in(reply.said)
    if not program:
        return Credit(0.0, "no program")
    result = run_program(program, item.tests)
    return Credit(float(result.passed), result.reason)


def ending(part: SuitePart, item: SuiteItem, reply: Reply) -> Credit:
    """1 where the model ends its answer by itself, after enough words and without going round in circles."""
    if not reply.ended:
        return Credit(0.0, "goes round in circles" if loops(reply.text) else "does not end")
    count = len(words(reply.said))
    return Credit(1.0) if count >= item.at_least else Credit(0.0, f"{count} words, {item.at_least} needed")


def coherence(part: SuitePart, item: SuiteItem, reply: Reply) -> Credit:
    """likeness x variety x topic: plain text of common words, without repeated runs of words, with keywords."""
    text, said = reply.said, words(reply.said)
    if len(said) < max(1, item.at_least):
        return Credit(0.0, f"{len(said)} words, {item.at_least} needed")
    plain = len(_PLAIN.findall(text)) / len(text)
    common = sum(word in part.common_words for word in said) / len(said)
    likeness = min(1.0, plain / PLAIN_SHARE) * min(1.0, common / COMMON_SHARE)
    again = repeated(said, COHERENCE_RUN)
    named = sum(finds(keyword, normal(text)) for keyword in item.keywords)
    value = likeness * (1 - again) * (1 + min(1.0, named / item.needed)) / 2
    return Credit(
        value,
        "" if value == 1 else f"likeness {likeness:.2f}, repeated runs {again:.2f}, {named} of {item.needed} keywords",
    )


def repetition(part: SuitePart, item: SuiteItem, reply: Reply) -> Credit:
    """1 - share of runs of four words that occurred before; proportionally less where the text is too short to tell."""
    said = words(reply.said)
    again, enough = repeated(said, REPETITION_RUN), min(1.0, len(said) / max(1, item.at_least))
    value = (1 - again) * enough
    return Credit(value, "" if value == 1 else f"{len(said)} words, repeated runs {again:.2f}")


def thinking(part: SuitePart, item: SuiteItem, reply: Reply) -> Credit:
    """1/2 for a block of thinking with words in it that is closed, 1/2 for the right answer after it."""
    before, opened, rest = reply.whole.partition(OPENED)
    thought, closed, _ = rest.partition(CLOSED)
    if before.strip() or not opened:
        return Credit(0.0, "no thinking")
    if not closed:
        return Credit(0.0, "thinking is not closed")
    if not words(thought):
        return Credit(0.0, "nothing is thought")
    return Credit(1.0) if _answers(item, reply) else Credit(0.5, "no right answer after thinking")


def direct(part: SuitePart, item: SuiteItem, reply: Reply) -> Credit:
    """0 for thinking or no answer; 1 for the right answer, 1/2 for another."""
    if OPENED in reply.whole or CLOSED in reply.whole:
        return Credit(0.0, "thinks")
    if not normal(reply.said):
        return Credit(0.0, "no answer")
    return Credit(1.0) if _answers(item, reply) else Credit(0.5, "another answer")


def _answers(item: SuiteItem, reply: Reply) -> bool:
    """Whether the answer is accepted; any answer where the item does not say which are."""
    text = normal(reply.said)
    if any(finds(phrase, text) for phrase in item.reject):
        return False
    return any(finds(phrase, text) for phrase in item.accept) if item.accept else bool(text)


def math(part: SuitePart, item: SuiteItem, reply: Reply) -> Credit:
    """(right significant digits / digits of the answer)^2, of the last number that is said."""
    said = numbers(reply.said)
    if not said:
        return Credit(0.0, "no number")
    right, digits = right_digits(said[-1], item.answer)
    return Credit((right / digits) ** 2, "" if right == digits else f"{said[-1]} has {right} of {digits} digits right")


def right_digits(value: Decimal, answer: str) -> tuple[int, int]:
    """(digits of ``value`` that are right, significant digits of ``answer`` as written).

    Two numbers agree to k digits where they differ by at most half a unit of the answer's k-th digit. Zero has one digit.
    """
    correct = Decimal(answer)
    digits = len(correct.as_tuple().digits)
    gap, first = abs(value - correct), correct.adjusted()
    right = 0
    while right < digits and 2 * gap <= Decimal(1).scaleb(first - right):
        right += 1
    return right, digits


def feelings(part: SuitePart, item: SuiteItem, reply: Reply) -> Credit:
    """1 - distance / distance of random answers, at least 0; 0 where an intensity is missing or above 10."""
    text, distance, chance = _SCALE_NAMED.sub(" ", reply.said.casefold()), 0.0, 0.0
    for name, level in item.feelings:
        said = re.findall(
            rf"(?<!\w){re.escape(name.casefold())}(?!\w)(?:[^\w\n-]|-(?!\d)){{0,12}}(\d+(?:\.\d+)?)", text
        )
        if not said or float(said[-1]) > SCALE:
            return Credit(0.0, f"no intensity of {name}")
        distance += abs(float(said[-1]) - level)
        chance += sum(abs(guess - level) for guess in range(SCALE + 1)) / (SCALE + 1)
    value = max(0.0, 1 - distance / chance)
    return Credit(value, "" if value == 1 else f"off by {distance / len(item.feelings):.1f} on average")


def reasoning(part: SuitePart, item: SuiteItem, reply: Reply) -> Credit:
    """1 for the right choice, number or words, else 0."""
    if item.accept:
        return facts(part, item, reply)
    if item.choices:
        return _choice(item, normal(reply.said))
    said = numbers(reply.said)
    if not said:
        return Credit(0.0, "no number")
    return Credit(1.0) if said[-1] == Decimal(item.answer) else Credit(0.0, f"says {said[-1]}")


def _choice(item: SuiteItem, text: str) -> Credit:
    """The only choice that is named; of several the one after the last word such as answer or therefore."""
    named = _named(item, text)
    if len(named) > 1:
        ends = [match.end() for match in _FINALLY.finditer(text)]
        named = _named(item, text[ends[-1] :]) if ends else named
    if len(named) != 1:
        return Credit(0.0, "several choices" if named else "no choice")
    return Credit(1.0) if named == {normal(item.answer)} else Credit(0.0, f"says {min(named)}")


def _named(item: SuiteItem, text: str) -> set[str]:
    longest_first = sorted((re.escape(normal(choice)) for choice in item.choices), key=len, reverse=True)
    return set(re.findall(rf"(?<!\w)(?:{'|'.join(longest_first)})(?!\w)", text))


Grader = Callable[[SuitePart, SuiteItem, Reply], Credit]
GRADERS: dict[str, Grader] = {
    suite.TOOLS: tools,
    suite.INSTRUCTIONS: instructions,
    suite.CODE: code,
    suite.ENDING: ending,
    suite.FACTS: facts,
    suite.COHERENCE: coherence,
    suite.REPETITION: repetition,
    suite.THINKING: thinking,
    suite.DIRECT: direct,
    suite.MATH: math,
    suite.FEELINGS: feelings,
    suite.REASONING: reasoning,
}
