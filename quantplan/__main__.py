"""``python -m quantplan``: the command line."""

from quantplan.cli.main import main

main()
