"""The integer program: from a damage table and a budget to a plan."""
