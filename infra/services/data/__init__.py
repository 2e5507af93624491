"""rows → topics; topics → records, served rows and columns that people can read, and why one was answered so."""
