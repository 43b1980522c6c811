"""Estimates the FLOPs, memory and traffic of training on torch's meta device, without training."""
