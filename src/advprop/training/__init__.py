"""The trainer: a loop around a method's `forward_backward`, with checkpoints for exact resumes."""
