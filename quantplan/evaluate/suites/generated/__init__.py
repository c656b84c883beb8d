"""Items of suites that a program makes from a seed: arithmetic, instructions, calls of tools, programs."""
