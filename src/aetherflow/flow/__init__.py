"""What a user writes: nodes, and how their arguments are found."""
