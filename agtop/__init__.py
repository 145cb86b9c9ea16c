"""The cockpit: what happens on this machine's Runloop, live or from the record, in one terminal."""
