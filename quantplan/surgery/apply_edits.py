"""From edits to the layer map that they make."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

from quantplan.block_ranges import runs_text
from quantplan.errors import BadUsage
from quantplan.surgery.edits import STRIP, Edit, Span
from quantplan.surgery.layer_map import MATRICES, Layer, LayerMap, Term

_MOST_LAYERS = 4096  # llama.cpp loads 512; edits that follow may still remove some


def apply_edits(blocks: int, edits: Sequence[Edit], mtp_blocks: int = 0) -> LayerMap:
    """The layers that the edits make of a model of ``blocks`` blocks. BadUsage naming the edit that cannot be made, and why.

    ``mtp_blocks``: how many at the end only predict further tokens; all of them can only be removed by ``strip mtp``.
    """
    layers = LayerMap.identity(blocks).layers
    stripped = False
    for number, edit in enumerate(edits, 1):
        try:
            had = _of_mtp(layers, blocks - mtp_blocks)
            layers = _without_mtp(layers, blocks - mtp_blocks) if edit.verb == STRIP else _applied(layers, edit)
            stripped |= edit.verb == STRIP
            if had and not stripped and not _of_mtp(layers, blocks - mtp_blocks):
                which = runs_text(block for layer in had for block in layer.blocks)
                raise BadUsage(
                    f"layer {which} must stay at the end, or be stripped: it predicts further tokens (MTP); 'strip mtp' does that"
                )
        except BadUsage as error:
            raise BadUsage(f"edit {number}, '{edit}': {error}") from None
    return LayerMap(blocks, layers)


def _of_mtp(layers: Sequence[Layer], main: int) -> list[Layer]:
    """The layers with something of blocks that predict further tokens, which begin at ``main``."""
    return [layer for layer in layers if max(layer.blocks) >= main]


def _without_mtp(layers: Sequence[Layer], main: int) -> tuple[Layer, ...]:
    gone = _of_mtp(layers, main)
    if not gone:
        raise BadUsage("no layer here only predicts further tokens (MTP)")
    return tuple(layer for layer in layers if layer not in gone)


def _applied(layers: tuple[Layer, ...], edit: Edit) -> tuple[Layer, ...]:
    """The layers after one edit; BadUsage where it cannot be made."""
    places = [place for place in (edit.after, edit.into) if place is not None]
    for index in (*(span.last for span in edit.spans), *places):
        if index >= len(layers):
            raise BadUsage(f"there is no layer {index}: at this point the layers are 0-{len(layers) - 1}")
    edited = _APPLY[edit.verb](layers, edit)
    if not edited:
        raise BadUsage("no layer would remain")
    if len(edited) > _MOST_LAYERS:
        raise BadUsage(f"the model would have {len(edited):,} layers, far more than llama.cpp loads")
    return edited


def _check_disjoint(spans: Sequence[Span], advice: str) -> None:
    for first, second in combinations(spans, 2):
        if first.overlaps(second):
            raise BadUsage(f"{first} and {second} overlap: {advice}")


def _delete(layers: tuple[Layer, ...], edit: Edit) -> tuple[Layer, ...]:
    _check_disjoint(edit.spans, "name each layer once")
    gone = {index for span in edit.spans for index in span.layers}
    return tuple(layer for index, layer in enumerate(layers) if index not in gone)


def _keep(layers: tuple[Layer, ...], edit: Edit) -> tuple[Layer, ...]:
    return tuple(layers[index] for span in edit.spans for index in span.layers)


def _swap(layers: tuple[Layer, ...], edit: Edit) -> tuple[Layer, ...]:
    """All pairs at once; ranges may differ in length."""
    _check_disjoint(edit.spans, "swapped ranges must be disjoint; write two swaps")
    partner: dict[int, tuple[Span, Span]] = {}
    for first, second in zip(edit.spans[::2], edit.spans[1::2], strict=True):
        partner |= {first.first: (first, second), second.first: (second, first)}
    swapped: list[Layer] = []
    index = 0
    while index < len(layers):
        old, new = partner.get(index, (Span(index, index), Span(index, index)))
        swapped += layers[new.first : new.last + 1]
        index += len(old)
    return tuple(swapped)


def _move(layers: tuple[Layer, ...], edit: Edit) -> tuple[Layer, ...]:
    (span,), after = edit.spans, edit.after
    assert after is not None
    if after in span.layers:
        raise BadUsage(f"{span} cannot be moved to a place inside itself")
    moved = layers[span.first : span.last + 1]
    before = [layer for index, layer in enumerate(layers[: after + 1]) if index not in span.layers]
    rest = [layer for index, layer in enumerate(layers[after + 1 :], after + 1) if index not in span.layers]
    return (*before, *moved, *rest)


def _bridge(layers: tuple[Layer, ...], edit: Edit) -> tuple[Layer, ...]:
    (span,), after = edit.spans, edit.after
    assert after is not None
    return (*layers[: after + 1], *layers[span.first : span.last + 1], *layers[after + 1 :])


def _repeat(layers: tuple[Layer, ...], edit: Edit) -> tuple[Layer, ...]:
    (span,) = edit.spans
    more = int(edit.number or 2) - 1
    return (*layers[: span.last + 1], *layers[span.first : span.last + 1] * more, *layers[span.last + 1 :])


def _replaced(layers: tuple[Layer, ...], span: Span, new: Iterable[Layer]) -> tuple[Layer, ...]:
    return (*layers[: span.first], *new, *layers[span.last + 1 :])


def _reverse(layers: tuple[Layer, ...], edit: Edit) -> tuple[Layer, ...]:
    (span,) = edit.spans
    if len(span) < 2:
        raise BadUsage("a single layer cannot be reversed; give a range")
    return _replaced(layers, span, layers[span.first : span.last + 1][::-1])


def _cycle(layers: tuple[Layer, ...], edit: Edit) -> tuple[Layer, ...]:
    (span,) = edit.spans
    steps = int(1 if edit.number is None else edit.number) % len(span)
    if steps == 0:
        raise BadUsage(f"this leaves {span} as it is; give a range, and fewer steps than it has layers")
    turned = layers[span.first : span.last + 1]
    return _replaced(layers, span, turned[steps:] + turned[:steps])


def _blend(layers: tuple[Layer, ...], edit: Edit) -> tuple[Layer, ...]:
    first, second = edit.spans
    if len(first) > 1 or len(second) > 1:
        raise BadUsage("blend takes two single layers; merge averages ranges")
    if first == second:
        raise BadUsage("a blend of a layer with itself is a copy; bridge makes copies")
    assert edit.number is not None
    new = _weighted_sum([(layers[first.first], 1 - edit.number), (layers[second.first], edit.number)])
    if edit.into is not None:
        return _replaced(layers, Span(edit.into, edit.into), [new])
    after = first.first if edit.after is None else edit.after
    return (*layers[: after + 1], new, *layers[after + 1 :])


def _merge(layers: tuple[Layer, ...], edit: Edit) -> tuple[Layer, ...]:
    if len(edit.spans) == 2:
        return _merge_ranges(layers, *edit.spans)
    (span,) = edit.spans
    if len(span) < 2:
        raise BadUsage("a single layer cannot be merged; give a range, or two ranges")
    return _replaced(layers, span, [_weighted_sum([(layers[index], 1 / len(span)) for index in span.layers])])


def _merge_ranges(layers: tuple[Layer, ...], first: Span, second: Span) -> tuple[Layer, ...]:
    """The averages take the place of the first range, the second goes."""
    _check_disjoint((first, second), "merged ranges must be disjoint")
    if len(first) != len(second):
        raise BadUsage(
            f"{first} has {len(first)} layers and {second} has {len(second)}: they are averaged layer by layer"
        )
    pairs = zip(first.layers, second.layers, strict=True)
    averages = [_weighted_sum([(layers[a], 0.5), (layers[b], 0.5)]) for a, b in pairs]
    merged = _replaced(layers, first, averages)
    return (*merged[: second.first], *merged[second.last + 1 :])


def _scale(layers: tuple[Layer, ...], edit: Edit) -> tuple[Layer, ...]:
    (span,) = edit.spans
    assert edit.number is not None
    scales = tuple((role, edit.number) for role in edit.roles or (MATRICES,))
    new = [_scaled(layers[index], scales) for index in span.layers]
    return _replaced(layers, span, new)


def _scaled(layer: Layer, scales: tuple[tuple[str, float], ...]) -> Layer:
    return Layer(tuple(Term(term.block, term.weight, _joined(term.scales + scales)) for term in layer.terms))


def _joined(scales: Iterable[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    """Factors of the same role multiplied, those that cancel left out."""
    product: defaultdict[str, float] = defaultdict(lambda: 1.0)
    for role, factor in scales:
        product[role] *= factor
    return tuple(sorted((role, factor) for role, factor in product.items() if factor != 1))


def _weighted_sum(shares: Sequence[tuple[Layer, float]]) -> Layer:
    """Terms of the same block and scales joined, those of weight 0 left out."""
    weights: defaultdict[tuple[int, tuple[tuple[str, float], ...]], float] = defaultdict(float)
    for layer, share in shares:
        for term in layer.terms:
            weights[term.block, term.scales] += share * term.weight
    return Layer(tuple(Term(block, weight, scales) for (block, scales), weight in sorted(weights.items()) if weight))


_APPLY: dict[str, Callable[[tuple[Layer, ...], Edit], tuple[Layer, ...]]] = {
    "delete": _delete,
    "keep": _keep,
    "swap": _swap,
    "move": _move,
    "bridge": _bridge,
    "repeat": _repeat,
    "reverse": _reverse,
    "cycle": _cycle,
    "blend": _blend,
    "merge": _merge,
    "scale": _scale,
}
