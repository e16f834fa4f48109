"""Concurrency of the controller: work queues, worker slots and the pass lock."""
