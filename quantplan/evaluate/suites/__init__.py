"""Suites of short tasks: read, asked, graded, compared."""
