"""Reports: one picture per case, one offline page per command."""
