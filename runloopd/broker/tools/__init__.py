"""Programs in a sandbox, and the tools of the host that are built on it and on the providers."""
