"""The trainer: a loop around a method's `step`, with checkpoints for exact resumes."""
