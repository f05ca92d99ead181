"""The console in a browser: who may come in, and the server that gives each tab a console of its own."""
