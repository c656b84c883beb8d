"""The search over layer maps: candidates, the models in memory that become them, phases, the leaderboard."""
