"""Measure files against their base model, compare them pair by pair, score tasks and suites."""
