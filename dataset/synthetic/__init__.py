"""The embedded benchmark: a world of known rules, its questions, its files and its Bayes oracle."""
