"""Fast unrolls of the recurrent cells: same values and gradients as the scan, other schedules."""
