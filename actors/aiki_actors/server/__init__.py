"""The server's actors: runs, timers, hub, schedules and the keeper."""
