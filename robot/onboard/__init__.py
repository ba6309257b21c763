"""What runs on the robot: load an artifact, judge it, run it in a safe loop. Needs numpy, msgspec and onnxruntime only."""
