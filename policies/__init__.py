"""What the robot learns: networks, learners, evaluation, export."""
