"""Arrays and tables of others, described in TOML."""
