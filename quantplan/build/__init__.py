"""Building what a plan says with llama-quantize, with checks before and after."""
