"""A server for recognition: OpenAI's form over HTTP, live sockets, home automation, and a page."""
