"""What a model card says of layer surgery: the edits in words, what they changed, and the search they come from."""

import shlex
from collections.abc import Callable, Sequence

from quantplan.evaluate.suites.suite_gap import against, suite_gap
from quantplan.evaluate.suites.suite_score import PartScore, SuiteScore
from quantplan.measurement import Estimate, Measurement
from quantplan.report.card_data import CardData
from quantplan.report.cells import UNKNOWN, estimate, interval
from quantplan.report.markdown import block, code, escaped, table
from quantplan.report.measurement_table import chunks_of
from quantplan.surgery.edits import STRIP, Edit, parse_edits
from quantplan.surgery.history import History
from quantplan.surgery.search.leaderboard import Leaderboard, RankedCandidate

SHOWN = 5  # rows of a leaderboard


def surgery(data: CardData, history: History) -> str:
    """Parts of Markdown: operations, the result against the original, the leaderboard."""
    parts = [_operations(data, history)]
    if history.measured or history.scores:
        parts.append(_against_original(history))
    if history.leaderboard:
        parts.append(_leaderboard(history.leaderboard, history))
    return "\n\n".join(parts)


# --- operations


def _operations(data: CardData, history: History) -> str:
    before, after = history.layer_map.original, len(history.layer_map)
    model = code(data.main.header.name)
    lines = [f"{number}. {in_words(edit)}" for number, edit in enumerate(parse_edits(history.edits), 1)]
    parts = [
        f"{model} has {after} layers, made of the {before} of {code(history.source)} without training. Each operation counts "
        "layers from 0, as the one before left them:",
        "\n".join(lines),
        f"The original's layers in their new order: {code(str(history.layer_map))}.",
    ]
    count = len(history.reencoded)
    parts.append(
        f"{count} tensors were computed, all others are the original's, byte for byte."
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
    if edit.verb == STRIP:
        return "**Strip** the blocks that only predict further tokens (MTP)."
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
    first, second = edit.spans
    where = f"in the place of layer {edit.into}" if edit.into is not None else None
    where = where or f"put in after layer {first if edit.after is None else edit.after}"
    return f"**Blend**: {1 - edit.number:g} of layer {first} and {edit.number:g} of layer {second}, {where}."


# --- against the original


def _against_original(history: History) -> str:
    parts = ["### Against the original"]
    if history.measured:
        parts.append(_measured(history, history.measured))
    if history.scores:
        parts.append(_scored(*history.scores))
    return "\n\n".join(parts)


def _measured(history: History, measured: Measurement) -> str:
    rows = [
        ["Layers", str(history.layer_map.original), str(len(history.layer_map))],
        ["PPL", estimate(measured.base_ppl), estimate(measured.ppl)],
        ["KLD against the original", "0", estimate(measured.kld)],
        ["Same top as the original, %", "100", estimate(measured.same_top)],
    ]
    note = f"{chunks_of(measured.conditions)}, ± standard error over tokens, before quantization."
    return f"{table(['', 'Original', 'This model'], rows)}\n\n{note}"


def _scored(original: SuiteScore, score: SuiteScore) -> str:
    by_name = {part.name: part for part in original.parts}
    rows = [
        [f"{escaped(part.name)}, {score.share(part):.0f} %", _credit(by_name.get(part.name)), _credit(part)]
        for part in score.parts
        if part.applies
    ]
    rows.append(["**Overall, of 100**", f"**{estimate(original.overall)}**", f"**{estimate(score.overall)}**"])
    said = escaped(against(suite_gap(score, original), "the original"))
    notes = [
        f"Suite {code(score.conditions.suite)}, {score.items} items, greedy answers; ± standard error. {said.capitalize()}."
    ]
    apart = [
        f"{escaped(part.name)} does not apply ({escaped(part.reason)})" for part in score.parts if not part.applies
    ]
    notes += [f"{'; '.join(apart)}: its weight goes to the others."] if apart else []
    return "\n\n".join([table(["Part and its weight", "Original", "This model"], rows), " ".join(notes)])


def _credit(part: PartScore | None) -> str:
    if part is None or not part.applies:
        return UNKNOWN
    percent = Estimate(100 * part.credit.value, None if part.credit.stderr is None else 100 * part.credit.stderr)
    return f"{estimate(percent)} %"


# --- the search


def _leaderboard(board: Leaderboard, history: History) -> str:
    tested = {standing.layer_map.digest: standing for standing in board.judgement.standings} if board.judgement else {}
    scored = any(standing.score for standing in board.standings)
    ranks = {id(standing): str(rank) for rank, standing in enumerate(board.standings, 1)}

    def gap(standing: RankedCandidate | None) -> str:
        return "0" if standing is board.original else _gap(standing)

    def edits(standing: RankedCandidate) -> str:
        mark = " (this model)" if standing.layer_map.digest == history.layer_map.digest else ""
        return "the original" if standing is board.original else f"{code(standing.edits)}{mark}"

    columns: list[tuple[str, Callable[[RankedCandidate], str]]] = [
        ("Rank", lambda standing: ranks.get(id(standing), "")),
        ("Edits", edits),
        ("Layers", lambda standing: str(len(standing.layer_map))),
        ("PPL", lambda standing: estimate(standing.ppl)),
        ("ln(PPL/original)", gap),
        ("KLD", lambda standing: "0" if standing is board.original else estimate(standing.kld)),
        *([("Score", lambda standing: estimate(standing.score))] if scored else []),
    ]
    if tested:
        columns.append(
            (
                "Evaluation text: ln(PPL/original)",
                lambda standing: "0" if standing is board.original else _gap(tested.get(standing.layer_map.digest)),
            )
        )
    shown = [*board.standings[:SHOWN], *([board.original] if board.original else [])]
    rows = [[cell(standing) for _, cell in columns] for standing in shown]
    notes = [
        f"{len(board.standings):,} candidates of the families {', '.join(board.families)}, ordered by {board.by.upper()} on "
        f"{chunks_of(board.conditions)}; in brackets 95 % intervals, paired with the original chunk by chunk. The best of "
        "many looks better than it is on the text that chose it."
    ]
    if board.judgement:
        notes.append(f"Evaluation text: {chunks_of(board.judgement.conditions)} that had no part in the choice.")
    headings = [heading for heading, _ in columns]
    return "\n\n".join(["### Leaderboard", table(headings, rows, texts=(1,)), " ".join(notes)])


def _gap(standing: RankedCandidate | None) -> str:
    if standing is None or standing.gap is None:
        return UNKNOWN
    gap = standing.gap
    return f"{gap.difference:+.4f} ({interval(gap.low, gap.high, '+.4f')})"
