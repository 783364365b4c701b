"""One thin command per workflow rule: parse, call the library, write atomically."""
