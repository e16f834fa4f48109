"""Commands that run trimtab, change services or show plans."""
