"""Foreign MCP servers as offers of tools: one sandboxed server and one sandboxed bridge each."""
