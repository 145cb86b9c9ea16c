"""The same graph of steps that do nothing, run by us and by others: one program each, one JSON line each."""
