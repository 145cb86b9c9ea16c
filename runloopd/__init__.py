"""The daemon. Its layers import only downwards: docs/internals/architecture.md."""
