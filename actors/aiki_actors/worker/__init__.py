"""The worker's actors: session, subscriber, executors and tasks."""
