"""Results as people read them: tables and plots. No figure is computed here."""
