"""The whole chain from a model to the best file of each size, resumable at every step."""
