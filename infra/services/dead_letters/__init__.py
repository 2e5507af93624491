"""`<pipeline>.dead-letters` → what was parked, and why; and its records on their way again."""
