"""Configuration, training, evaluation, checkpoints and logs."""
