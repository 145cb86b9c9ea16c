"""One run taken out of the ledger into a file (``seal``), and the file judged by a stranger (``check``)."""
