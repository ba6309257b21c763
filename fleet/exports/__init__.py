"""A hub's experience in other people's formats, and lists of it that others read by themselves. The log stays the truth; these are copies."""
