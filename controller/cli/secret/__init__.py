"""`secret`: keys of namespaces, and SOPS files to encrypt, edit, rotate and list."""
