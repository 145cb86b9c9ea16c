"""What the commands do: one function per row of ``rlp.table``, taking the session and the row's values."""
