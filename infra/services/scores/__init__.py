"""a version and rows → its scores of them: by hand, of what was served before, or by schedule."""
