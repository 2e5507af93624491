"""One module per page: each has `ROUTES`, and nothing that a command could not show as well."""
