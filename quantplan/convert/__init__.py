"""Models in safetensors, made into GGUFs by llama.cpp's own converter."""
