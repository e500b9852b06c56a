"""What the server remembers: accounts, conversations, feedback, usage. Knows no HTTP.

`database.py` opens SQLite or PostgreSQL, `account_tables.py` and `chat_tables.py` are the tables,
`migrations/` how they came to be, and every other file the queries of one noun. Queries take a
session of SQLAlchemy first: `with database.write() as session: users.add(session, ...)`.
"""
