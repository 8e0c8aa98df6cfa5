"""What each strategy would take for a loop, and the fastest that fits in the memory there is."""
