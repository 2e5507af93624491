"""one-row requests → how many a second `headrace serve` and its peers answer, and how soon."""
