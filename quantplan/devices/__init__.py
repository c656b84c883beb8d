"""Memory and speed of the machine that a file shall run on."""
