"""Where kept states are, and how they are written there."""
