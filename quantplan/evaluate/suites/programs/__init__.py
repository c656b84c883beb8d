"""Programs that a model wrote: taken out of its answer and run with limits."""
