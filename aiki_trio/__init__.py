"""What you run and embed: the runtime, workers, settings, the command line and the test kit."""
