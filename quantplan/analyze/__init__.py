"""What weights and importance matrices tell without running the model."""
