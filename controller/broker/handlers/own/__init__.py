"""Routes of trimtab itself: health, policy, inventory, looks, records, the journal."""
