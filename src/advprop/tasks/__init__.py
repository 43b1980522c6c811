"""Tasks: what a model learns, what attacks raise, and the numbers to show of a step."""
