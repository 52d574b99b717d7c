"""The same jobs from a shell. Nothing here decides anything: a command reads its arguments, calls the engine and prints."""
