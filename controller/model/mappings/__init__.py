"""Mappings with thousands of entries, whose changed copies share nearly all parts."""
