"""Estimates FLOPs, memory, traffic and time of training, mostly on torch's meta device."""
