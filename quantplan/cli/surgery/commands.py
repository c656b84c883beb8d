"""The commands of `quantplan surgery` under one name."""

from __future__ import annotations

import typer

from quantplan.cli.surgery import apply, publish, score, search


def application() -> typer.Typer:
    app = typer.Typer(
        name="surgery",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="Cut, repeat, swap and blend the blocks of a model; search over it, score it, publish it.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.command("apply")(apply.apply)
    app.command("search")(search.search)
    app.command("score")(score.score)
    app.command("publish")(publish.publish)
    return app
