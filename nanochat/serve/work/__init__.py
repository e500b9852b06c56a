"""The work side of the server: served models, their queues and workers. Knows no HTTP."""
