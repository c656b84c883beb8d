"""What a model card says of an operated model: its edits in words, what they changed, and the search they come from."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from quantplan.evaluate.suites.suite_gap import suite_gap
from quantplan.evaluate.suites.suite_score import PartScore, SuiteScore
from quantplan.evaluate.suites.verdicts import against
from quantplan.measurement import Estimate, Measurement
from quantplan.report.card_data import CardData
from quantplan.report.card_results import chunks_of
from quantplan.report.cells import UNKNOWN, estimate
from quantplan.report.markdown import block, code, escaped, table
from quantplan.surgery.edits import Edit, parse_edits
from quantplan.surgery.history import History
from quantplan.surgery.search.leaderboard import Leaderboard, RankedCandidate

SHOWN = 5  # rows of a leaderboard


def surgery(found: CardData, history: History) -> str:
    """Parts of Markdown: operations, the original beside the result, the leaderboard."""
    parts = [_operations(found, history)]
    if history.measured or history.scores:
        parts.append(_against_original(history))
    if history.leaderboard:
        parts.append(_leaderboard(history.leaderboard, history))
    return "\n\n".join(parts)


# --- operations


def _operations(found: CardData, history: History) -> str:
    before, after = history.layer_map.original, len(history.layer_map)
    model = code(found.main.header.name)
    lines = [f"{number}. {in_words(edit)}" for number, edit in enumerate(parse_edits(history.edits), 1)]
    parts = [
        f"{model} has {after} layers, made of the {before} of {code(history.source)} without training. Each operation counts "
        "layers from 0, as the one before left them:",
        "\n".join(lines),
        f"The original's layers in their new order: {code(str(history.layer_map))}.",
    ]
    count = len(history.reencoded)
    parts.append(
        f"{count} tensors were computed anew, all others are the original's, byte for byte."
        if count
        else "Every tensor is one of the original's, byte for byte."
    )
    return "\n\n".join([*parts, block(_command(history), "sh")])


def _command(history: History) -> str:
    """What makes the model again, under the name that the other commands of the card know it by."""
    name = f" --name {shlex.quote(history.name)}" if history.name else ""
    out = f" --out {shlex.quote(history.out)}" if history.out else ""
    return f'quantplan surgery apply {shlex.quote(history.source)} "{history.edits}"{name}{out}'


def in_words(edit: Edit) -> str:
    """The edit as a sentence."""
    spans = [str(span) for span in edit.spans]
    first = f"layers {spans[0]}" if len(edit.spans[0]) > 1 else f"layer {spans[0]}"
    after = f"after layer {edit.after}"
    return {
        "delete": lambda: f"**Delete** {_listed('layer', spans)}.",
        "keep": lambda: f"**Keep** {_listed('layer', spans)}, in this order.",
        "swap": lambda: (
            f"**Swap** {', '.join(' and '.join(pair) for pair in zip(spans[::2], spans[1::2], strict=True))}."
        ),
        "move": lambda: f"**Move** {first} {after}.",
        "bridge": lambda: f"**Bridge**: a copy of {first} is put in {after}.",
        "repeat": lambda: f"**Repeat** {first}: passed {_times(int(edit.number or 2))}.",
        "reverse": lambda: f"**Reverse** {first}.",
        "cycle": lambda: f"**Cycle** {first} by {edit.number or 1:g}.",
        "blend": lambda: _blended(edit),
        "merge": lambda: (
            f"**Merge** {' and '.join(spans)} into {'their averages' if len(spans) > 1 else 'their average'}."
        ),
        "scale": lambda: f"**Scale** {', '.join(edit.roles) or 'the matrices'} of {first} by {edit.number:g}.",
    }[edit.verb]()


def _listed(what: str, spans: Sequence[str]) -> str:
    several = len(spans) > 1 or "-" in spans[0]
    return f"{what}{'s' if several else ''} {', '.join(spans)}"


def _times(times: int) -> str:
    return {2: "twice", 3: "three times"}.get(times, f"{times} times")


def _blended(edit: Edit) -> str:
    assert edit.number is not None
    one, other = edit.spans
    where = f"in the place of layer {edit.into}" if edit.into is not None else None
    where = where or f"put in after layer {one if edit.after is None else edit.after}"
    return f"**Blend**: {1 - edit.number:g} of layer {one} and {edit.number:g} of layer {other}, {where}."


# --- the original beside it


def _against_original(history: History) -> str:
    parts = ["### Against the original"]
    if history.measured:
        parts.append(_measured(history, history.measured))
    if history.scores:
        parts.append(_scored(*history.scores))
    return "\n\n".join(parts)


def _measured(history: History, own: Measurement) -> str:
    rows = [
        ["Layers", str(history.layer_map.original), str(len(history.layer_map))],
        ["PPL", estimate(own.base_ppl), estimate(own.ppl)],
        ["KLD from the original, nats per token", "0", estimate(own.kld)],
        ["Same top as the original, %", "100", estimate(own.same_top)],
    ]
    note = f"{chunks_of(own.conditions).capitalize()}, ± standard error over tokens, before quantization."
    return f"{table(['', 'Original', 'This model'], rows)}\n\n{note}"


def _scored(original: SuiteScore, own: SuiteScore) -> str:
    by_name = {part.name: part for part in original.parts}
    rows = [
        [f"{escaped(part.name)}, {own.share(part):.0f} %", _credit(by_name.get(part.name)), _credit(part)]
        for part in own.parts
        if part.applies
    ]
    rows.append(["**Overall, of 100**", f"**{estimate(original.overall)}**", f"**{estimate(own.overall)}**"])
    said = escaped(against(suite_gap(own, original), "the original"))
    notes = [
        f"Suite {code(own.conditions.suite)}, {own.items} items, greedy answers; ± standard error. {said.capitalize()}."
    ]
    apart = [f"{escaped(part.name)} does not apply ({escaped(part.reason)})" for part in own.parts if not part.applies]
    notes += [f"{'; '.join(apart)}: its weight goes to the others."] if apart else []
    return "\n\n".join([table(["Part and its weight", "Original", "This model"], rows), " ".join(notes)])


def _credit(part: PartScore | None) -> str:
    if part is None or not part.applies:
        return UNKNOWN
    percent = Estimate(100 * part.credit.value, None if part.credit.stderr is None else 100 * part.credit.stderr)
    return f"{estimate(percent)} %"


# --- the search


def _leaderboard(found: Leaderboard, history: History) -> str:
    judged = {each.layer_map.digest: each for each in found.judgement.standings} if found.judgement else {}
    scored = any(each.score for each in found.standings)
    headings = ["Rank", "Edits", "Layers", "PPL", "ln(PPL/original)", "KLD", *(["Score"] if scored else [])]
    headings += ["Held out: ln(PPL/original)"] if judged else []
    rows = []
    for rank, each in enumerate(found.standings[:SHOWN], 1):
        mark = " (this model)" if each.layer_map.digest == history.layer_map.digest else ""
        cells = [str(rank), f"{code(each.edits)}{mark}", str(len(each.layer_map)), estimate(each.ppl), _gap(each)]
        cells += [estimate(each.kld), *([estimate(each.score)] if scored else [])]
        rows.append(cells + ([_gap(judged.get(each.layer_map.digest))] if judged else []))
    if found.original:
        own = found.original
        cells = [
            "",
            "the original",
            str(found.blocks),
            estimate(own.ppl),
            "0",
            "0",
            *([estimate(own.score)] if scored else []),
        ]
        rows.append(cells + (["0"] if judged else []))
    count = len(found.standings)
    notes = [
        f"{count:,} candidates of the families {', '.join(found.families)}, ordered by {found.by.upper()} on "
        f"{chunks_of(found.conditions)}; in brackets 95 % intervals, paired with the original window by window. The best of "
        "many looks better than it is on the text that chose it."
    ]
    if found.judgement:
        notes.append(f"Held out: {chunks_of(found.judgement.conditions)} of a text that had no part in the choice.")
    return "\n\n".join(["### Leaderboard", table(headings, rows, texts=(1,)), " ".join(notes)])


def _gap(standing: RankedCandidate | None) -> str:
    if standing is None or standing.gap is None:
        return UNKNOWN
    gap = standing.gap
    return f"{gap.difference:+.4f} ({gap.low:+.4f} to {gap.high:+.4f})"
