"""How it works: the actor kernel, the pure engine, storage, queues, server and worker actors."""
