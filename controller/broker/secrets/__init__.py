"""Secrets in the broker: private keys, files of the host, and the decryption worker."""
