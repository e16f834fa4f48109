"""The record of every change: written by the broker only, readable by whoever may read its files."""
