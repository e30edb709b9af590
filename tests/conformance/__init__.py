"""What a guest promises, said once and asked of both: the simulated one, and a real virtual machine."""
