"""The page of scripts/explore.py: ask, mute, look."""
