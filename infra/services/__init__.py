"""What the command line can do, without its words: one module per thing a person asks for. A console reads the same."""
