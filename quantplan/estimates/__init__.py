"""What work will take before it begins: time by a short timing of this machine, memory and disk."""
