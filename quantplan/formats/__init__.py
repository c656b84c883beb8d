"""How nouns are stored: each format read and written side by side."""
