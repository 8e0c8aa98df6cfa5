"""How the past is remembered: time loops whose backward pass has a strategy of its own."""
