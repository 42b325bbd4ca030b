"""What answers cost. Prices first; budgets and the ledger build on them."""
