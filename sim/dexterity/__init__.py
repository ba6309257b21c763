"""The dexterity benchmark: 33 grasps of the GRASP taxonomy and Kapandji's ten thumb positions, found once, re-simulated to score."""
