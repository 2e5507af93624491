"""pages of `headrace serve` for people: what the service layer says, as HTML, kept up to date by push."""
