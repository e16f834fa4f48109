"""Concurrency of the controller: the work queue, worker slots and the pass lock."""
