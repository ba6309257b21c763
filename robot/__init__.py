"""What the robot is: description, transmission, contract, experience record. Needs numpy and msgspec only."""
