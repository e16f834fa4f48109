"""Child processes: start, restart and end; dropping privileges; the lock of an instance."""
