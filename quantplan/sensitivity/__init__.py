"""What each tensor costs in KL divergence: round trip, probe, activation quantization."""
