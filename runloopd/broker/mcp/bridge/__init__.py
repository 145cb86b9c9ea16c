"""The process between the daemon and one MCP server: the only place that speaks MCP as a client."""
