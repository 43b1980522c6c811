"""What training costs, found without training: FLOPs, memory, traffic, on torch's meta device."""
