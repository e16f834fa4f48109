"""Declared Secrets: their sources, and what is wrong with them before anything is decrypted."""
