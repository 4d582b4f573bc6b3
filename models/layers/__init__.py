"""Building blocks that several modules share."""
