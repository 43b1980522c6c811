"""Estimates FLOPs, memory and time of training, mostly on torch's meta device."""
