"""What the cockpit knows of runs: facts, states, the time line. Pure: no terminal, no files, no clock."""
