"""From a checked config to a run: building, training, evaluating, planning, and what the terminal shows of it."""
