"""What people and programs talk to: the terminal chat, the web page and the API."""
