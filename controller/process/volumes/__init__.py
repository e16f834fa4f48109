"""Volumes on disk: archives, written and read by a child that is confined to the folder of a volume."""
