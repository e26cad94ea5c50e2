"""What a run records and shows: metrics, events, environment and progress."""
