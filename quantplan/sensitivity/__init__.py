"""What rounding costs a model, measured by running it."""
