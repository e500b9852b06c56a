"""Everything that a run will need, looked at before it starts: one line for each."""
