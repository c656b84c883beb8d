"""Tokens per second: measured products, a model of them, llama-bench."""
