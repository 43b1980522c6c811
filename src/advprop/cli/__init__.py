"""The command line: one short file a subcommand; heavy imports wait until they are needed."""
