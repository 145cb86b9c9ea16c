"""Outside faces: Runloop as an MCP server and as an agent in an editor. Programs of the shell side, like
``rlp``: they ask the daemon, and decide nothing that it decides."""
