"""The nouns and the protocols: what a pipeline is, what travels on the wire, what a version is. No I/O."""
