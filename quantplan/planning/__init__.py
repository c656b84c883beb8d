"""From a request to a plan, and what can be said about plans: why, how they differ, every size."""
