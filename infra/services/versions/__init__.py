"""what the registry and the histories say → versions as people know them, what made them, and who served what, when."""
