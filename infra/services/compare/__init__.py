"""versions, or policies, over the same past → which is better, as figures, as plots and as a page."""
