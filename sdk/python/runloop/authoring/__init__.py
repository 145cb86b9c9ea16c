"""Making agents: scaffold, lint, build, test cases. Runs on an author's machine and needs no daemon."""
