"""The commands of `quantplan surgery` under one name."""

from quantplan.cli.commands import Entry, LazyGroup, group

PANELS: dict[str, tuple[Entry, ...]] = {
    "Layer surgery": (
        Entry("apply", "Delete, repeat, move, swap, blend or scale layers", "quantplan.cli.surgery.apply:apply"),
        Entry("search", "Search over edits, and rank them", "quantplan.cli.surgery.search:search"),
        Entry("publish", "From edits to a folder to upload", "quantplan.cli.surgery.publish:publish"),
        Entry("score", "Now `quantplan score`", "quantplan.cli.score:score", hidden=True),
    )
}


def _surgery() -> None:
    pass


def surgery() -> LazyGroup:
    return group(
        _surgery,
        PANELS,
        name="surgery",
        add_completion=False,
        help="Edit the layers of a model: apply, search, publish.",
    )
