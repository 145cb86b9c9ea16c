"""Who may: minting, keys, approvals."""
