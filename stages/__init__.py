"""DVC entry points: each reads the parameters, calls the library, and writes its outs."""
