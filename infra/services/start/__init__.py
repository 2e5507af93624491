"""an empty folder, a pipeline not yet run, a new machine → what works at once, and what would go wrong later."""
