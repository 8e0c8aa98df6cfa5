"""When to keep a state and when to recompute it: integers, without arrays."""
