"""Commands to run trimtab, change services and show plans."""
