"""Error-compensated rounding of weight matrices into stock ggml blocks."""
