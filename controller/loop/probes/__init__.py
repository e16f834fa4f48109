"""Health probes by HTTP and TCP, run by the controller."""
