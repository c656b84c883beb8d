"""quantplan finds, builds and proves the best mixed quantization of a GGUF model for a given size."""

__version__ = "0.1.0"
