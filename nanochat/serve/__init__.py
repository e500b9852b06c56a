"""People and programs talk to a model: the page, the API (`http`), the queue and the workers behind
them (`work`), and the terminal.
"""
