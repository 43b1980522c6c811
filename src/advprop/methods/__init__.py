"""Training methods: each leaves gradients in `.grad` and returns numbers."""
