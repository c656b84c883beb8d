"""What is learned by running the model: probes, builds, measurements, comparisons."""
