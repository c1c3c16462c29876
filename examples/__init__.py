"""Programs that show one thing each; they run as they are, and the test suite runs them too."""
