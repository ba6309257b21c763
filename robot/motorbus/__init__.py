"""Motors on a bus: the interface, its errors, a Dynamixel bus behind it, and a simulated one that fails as a real one does."""
