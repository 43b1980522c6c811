"""The command line: one short file per subcommand, with heavy imports inside functions."""
