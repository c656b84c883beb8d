"""GGUF files: headers read and written, sizes computed to the byte, imatrix files."""
