"""headrace beside its peers, on one broker and the same cores: `headrace dev bench`."""
