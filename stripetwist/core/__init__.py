"""The engine: pure functions of bytes and time, standard library only."""
