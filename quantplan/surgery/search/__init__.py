"""The search over layer maps: candidates, the loaded models that evaluate them, phases, the leaderboard."""
