"""Analysis: what a trained network's states and curves look like."""
