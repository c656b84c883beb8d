"""Models' answers to suites of short tasks: asked, graded, compared."""
