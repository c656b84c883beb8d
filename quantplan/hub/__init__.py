"""Models on a hub."""
