"""The trainer: a loop around one method's `forward_backward`, with nothing lost."""
