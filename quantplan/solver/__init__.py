"""The integer program: from a sensitivity table and a budget to a plan."""
