"""How it is reached: the HTTP interface, worker sessions, live streams and the dashboard."""
