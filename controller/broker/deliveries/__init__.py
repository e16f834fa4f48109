"""Files of Configs at the gate, without I/O: accepted deliveries, and the folders that are mounted."""
