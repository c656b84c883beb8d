"""llama.cpp: its tools (argv, run, parse) and its libraries (ggml, the loaded model)."""
