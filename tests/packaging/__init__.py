"""What is released and how: the fast part. The whole of it is packaging/tests/all (make release-test)."""
