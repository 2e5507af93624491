"""everything that runs → how it is doing now: status, what to look at, and where a process's time goes."""
