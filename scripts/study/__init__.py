"""Studies of finished runs and of the published tables."""
