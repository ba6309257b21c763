"""What the fleet layer does on this machine, and Reverb beside it: `flexor bench fleet`."""
